"""Many clients at once against a real server: every sound must be what a direct call gives.

    python scripts/check_service.py --clients 50 --seconds 60

Starts `mmaudio serve` with a queue shorter than the clients, sends every client's own prompts and seeds until the time
is over, waits for what was accepted, and compares each result with a direct call. Exit code 1 if a job was lost, a
result is another one's, nothing was refused although the queue was full, or memory kept growing.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import torch

import mmaudio
from mmaudio.console import log
from mmaudio.media import read_audio

WORDS = ("a glass bottle is struck", "rain", "footsteps on wood", "a bell", "thunder", "a fan runs", "keys are typed")
ALIKE = 0.8  # cosine; batches round differently, and Griffin-Lim's phases make more of that: 0.9 is usual, others' 0.02
GROWTH = 1.2  # of the memory in the second half of the time over that in the first


@dataclass
class Tally:
    accepted: dict[str, dict] = field(default_factory=dict)  # id -> options
    codes: Counter = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def client(number: int, address: str, steps: int, until: float, tally: Tally) -> None:
    with httpx.Client(base_url=address, timeout=60) as server:
        turn = 0
        while time.monotonic() < until:
            options = {
                "prompt": f"{WORDS[number % len(WORDS)]}, {number}",
                "seed": 1000 * number + turn,
                "num_steps": steps,
                "duration": 1.0,
            }
            answer = server.post("/v1/generations", files={"options": (None, json.dumps(options))})
            with tally.lock:
                tally.codes[answer.status_code] += 1
                if answer.status_code == 202:
                    tally.accepted[answer.json()["id"]] = options
            turn += answer.status_code == 202
            time.sleep(float(answer.headers.get("Retry-After", 0.1)) if answer.status_code == 429 else 0.1)


def resident(process: int) -> int:
    """MiB of memory that a process holds."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) // 1024


def watch_memory(process: int, memory: list[int], ended: threading.Event) -> None:
    while not ended.wait(1.0):
        memory.append(resident(process))


def start(folder: Path, variant: str, queue: int) -> tuple[subprocess.Popen, str]:
    """`mmaudio serve` on a free port, and its address."""
    code = "import sys; from mmaudio.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--queue", str(queue), "--variant", variant]
    server = subprocess.Popen([*command, "--device", "cpu", "--output", str(folder)], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if found := re.match(r"(http://\S+:\d+)/", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, found[1]
    raise SystemExit(f"the server did not start: exit code {server.wait()}")


def likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def wrong_results(address: str, accepted: dict[str, dict], variant: str) -> list[str]:
    """What is lost or not the sound of its own prompt and seed."""
    pipe, problems, own, others, before = mmaudio.load(variant, device="cpu"), [], [], [], None
    with httpx.Client(base_url=address, timeout=None) as server, tempfile.TemporaryDirectory() as folder:
        for id, options in accepted.items():
            server.get(f"/v1/generations/{id}/events")  # ends with the job
            state = server.get(f"/v1/generations/{id}").json()
            if state["state"] != "done":
                problems.append(f"{id} is {state['state']}: {state['error']}")
                continue
            path = Path(folder) / "take.flac"
            path.write_bytes(server.get(state["takes"][0]["files"]["flac"]).content)
            direct = pipe(**options)[0].audio
            got = read_audio(path)[0]
            own.append(likeness(got, direct) if got.shape == direct.shape else 0.0)
            if own[-1] < ALIKE:
                problems.append(f"{id} is not the sound of {options}: likeness {own[-1]:.3f}")
            others += [] if before is None else [likeness(before, direct)]
            before = direct
    closest = max(others, default=0.0)
    log(f"likeness to the direct call: at least {min(own, default=0.0):.3f}; to another's: at most {closest:.3f}")
    if closest > ALIKE:
        problems.append("the sounds are too like each other to tell whose they are: take other words")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--variant", default="tiny_16k")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        server, address = start(Path(folder), args.variant, args.queue)
        try:
            memory, ended = [resident(server.pid)], threading.Event()
            threading.Thread(target=watch_memory, args=(server.pid, memory, ended), daemon=True).start()
            arguments = (address, args.steps, time.monotonic() + args.seconds, tally)
            clients = [threading.Thread(target=client, args=(i, *arguments)) for i in range(args.clients)]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join()
            problems = wrong_results(address, tally.accepted, args.variant)
            ended.set()
            metrics = httpx.get(f"{address}/metrics").text
        finally:
            server.terminate()
            server.wait(60)
    half = len(memory) // 2
    early, late = max(memory[: half + 1]), max(memory[half:])
    refused = tally.codes[429]
    log(f"{args.clients} clients, {args.seconds:g} s: answers {dict(tally.codes)}")
    log(f"{len(tally.accepted)} accepted, {len(problems)} lost or wrong")
    for problem in problems[:5]:
        log(problem)
    log(f"memory of the server, MiB: {memory[0]} at first, at most {early} in the first half, {late} in the second")
    log("; ".join(line for line in metrics.splitlines() if line.startswith("mmaudio_batche")))
    others = sum(count for code, count in tally.codes.items() if code not in (202, 429))
    full = args.clients > args.queue + 2
    sound = tally.accepted and not problems and not others and (refused or not full) and late < GROWTH * early
    print("sound" if sound else "NOT sound")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
