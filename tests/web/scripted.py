"""A stand-in for a pipeline that takes as long as a test wants; its sound tells prompt and seed."""

import threading
import zlib

import torch

from mmaudio.generation import Generation
from mmaudio.variants import VARIANTS
from mmaudio.web.jobs import Engine

VARIANT = VARIANTS["tiny_16k"]
STEPS = 1000
SOON = 60.0  # seconds; what takes longer hangs


def sound_of(prompt: str, seed: int) -> torch.Tensor:  # (1, 1600)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{prompt}/{seed}".encode()))
    return torch.rand(1, 1600, generator=generator) - 0.5


class ScriptedPipeline:
    """While `go` is not set it steps on the spot."""

    variant = VARIANT

    def __init__(self):
        self.go, self.begun, self.batches, self.error = threading.Event(), threading.Event(), [], None
        self.go.set()

    def release(self):
        pass

    def generate(self, requests, *, num_samples, progress, **settings):
        self.batches.append([request.prompt for request in requests])
        self.begun.set()
        for step in range(STEPS):
            progress("solve", step, STEPS)
            if self.go.wait(0.005):
                break
        if self.error is not None:
            raise self.error
        return [[self.made(request, request.seed + i) for i in range(num_samples)] for request in requests]

    def made(self, request, seed):
        return Generation(
            audio=sound_of(request.prompt, seed), sample_rate=16_000, latents=torch.zeros(1, 1), seed=seed,
            variant="tiny_16k", prompt=request.prompt, duration=0.1, source=request.inputs.source,
            is_picture=request.inputs.is_picture, notes=(f"about {request.inputs.source}",),
        )  # fmt: skip


def engine(pipe, folder, **options) -> Engine:
    return Engine(lambda name: pipe, folder, {"tiny_16k": VARIANT}, **options)
