"""Chromium without a window, for what a page does and not only says."""

import json
import os
import select
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 120  # seconds
KEYS = {  # key -> code, number and text of its event
    "Tab": ("Tab", 9, ""), " ": ("Space", 32, " "), "ArrowRight": ("ArrowRight", 39, ""), "Enter": ("Enter", 13, "\r"),
}  # fmt: skip


class Browser:
    """Steered by its debugging protocol over two pipes; `asked` are the addresses that its page wanted something of."""

    def __init__(self, folder):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        flags = f"--headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={folder} about:blank"
        command = f'exec "{CHROMIUM}" {flags} 3<&{to_browser} 4>&{from_browser}'
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=(to_browser, from_browser), **quiet)
        os.close(to_browser)
        os.close(from_browser)
        self.pending, self.count, self.session, self.asked, self.loaded = b"", 0, None, [], 0
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.call("Network.enable")
        self.call("Page.enable")

    def message(self) -> dict:
        while b"\0" not in self.pending:
            assert select.select([self.read], [], [], PATIENCE)[0], "the browser says nothing"
            chunk = os.read(self.read, 2**16)
            assert chunk, "the browser is gone"
            self.pending += chunk
        message, _, self.pending = self.pending.partition(b"\0")
        message = json.loads(message)
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        self.loaded += message.get("method") == "Page.loadEventFired"
        return message

    def call(self, method, **parameters):
        self.count += 1
        session = {"sessionId": self.session} if self.session else {}
        request = {"id": self.count, "method": method, "params": parameters, **session}
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while (message := self.message()).get("id") != self.count:
            pass
        return message["result"]

    def open(self, url) -> None:
        self.loaded = 0  # what was opened before may have been read to its end only now
        self.call("Page.navigate", url=url)
        self.wait_for_page()

    def wait_for_page(self) -> None:
        while not self.loaded:
            self.message()
        self.loaded = 0

    def tell(self, expression):
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        return self.call("Runtime.evaluate", expression=expression, **options)["result"].get("value")

    def press(self, key) -> None:
        code, number, text = KEYS[key]
        given = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)
