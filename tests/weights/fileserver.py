"""A local HTTP server that can misbehave, files to fetch from it, and the rule for messages."""

import hashlib
import http.server
import re
import time

from mmaudio.weights import WeightFile

BODY = bytes(range(256)) * 4000  # about 1 MB: several chunks
NAME = "net.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.body` with ETag and Range; `server.modes` holds one misbehaviour per request, in order."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted, self.headers.get("If-Range")))
        mode = server.modes.pop(0) if server.modes else ""
        if mode in {"404", "503"}:
            return self.send_error(int(mode))
        body, start = server.body, 0
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        same = self.headers.get("If-Range", etag) == etag
        if wanted and same and mode != "no range":
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                return self.end_headers()
            self.send_response(206)
            sent_start = 0 if mode == "wrong range" else start
            self.send_header("Content-Range", f"bytes {sent_start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if mode != "no etag":
            self.send_header("ETag", etag)
        self.send_header("Content-Type", "text/html" if mode == "html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if mode == "slow":
            time.sleep(0.5)
        self.wfile.write(rest[: len(rest) // 2] if mode in {"drop", "no etag"} else rest)


def remote(server, body=BODY, **changes):
    usual = {"name": NAME, "url": f"{server.base}/files/{NAME}", "md5": hashlib.md5(body).hexdigest()}
    return WeightFile(**usual | changes)


def message(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text
