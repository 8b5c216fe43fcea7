"""torch.compile for generation: for the lengths that come up, kept on disk, and given up where it does not work."""

import dataclasses
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.vocoder import GriffinLim
from mmaudio.console import log
from mmaudio.model.network import Conditions, MMAudio
from mmaudio.weights import cache_dir


class Compiled:
    """A function of tensors that is compiled as its shapes come up, or runs as it is where that fails.

    On CUDA each shape becomes a CUDA graph, too, which is what torch's mode "reduce-overhead" is. What the compiler
    makes is kept in the cache folder (or in $TORCHINDUCTOR_CACHE_DIR). Every first call with new shapes is told of.
    """

    def __init__(self, name: str, function: Callable[..., Tensor], graphs: bool):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled"))
        self.name, self.function, self.graphs = name, function, graphs
        self.compiled = torch.compile(function, mode="reduce-overhead" if graphs else None)
        self.seen = set()

    def __call__(self, *args) -> Tensor:
        if self.compiled is None:
            return self.function(*args)
        began = time.perf_counter()
        try:
            result = self.run(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of many kinds; what is wrong with the arguments is raised again without it
            self.compiled = None
            reason = " ".join(str(error).split())[:200]
            log(f"torch.compile does not work here, the {self.name} goes on without it: {reason}")
            return self.function(*args)
        shapes = _shapes(args)
        if shapes not in self.seen:
            self.seen.add(shapes)
            log(f"{self.name}: compiled for this length in {time.perf_counter() - began:.1f} s")
        return result

    def run(self, *args) -> Tensor:
        if not self.graphs:
            return self.compiled(*args)
        torch.compiler.cudagraph_mark_step_begin()
        return self.compiled(*args).clone()  # the next replay writes where this one has written


def _shapes(args) -> tuple:
    """The shapes of tensors, also of those within dataclasses."""
    shapes = []
    for arg in args:
        if dataclasses.is_dataclass(arg):
            shapes.append(_shapes(vars(arg).values()))
        else:
            shapes.append(None if arg is None else tuple(arg.shape))
    return tuple(shapes)


def compile_part(part: MMAudio | AudioCodec) -> None:
    """Let a loaded part run compiled, in place: the network's velocity, the codec's decoding half.

    Griffin-Lim stays as it is: Fourier transforms.
    """
    if isinstance(part, AudioCodec):
        graphs = part.mel.window.is_cuda
        part.vae.decode = Compiled("VAE", part.vae.decode, graphs)
        if not isinstance(part.vocoder, GriffinLim):
            part.vocoder.forward = Compiled("vocoder", part.vocoder.forward, graphs)
        return
    part.t_embed.embedding(torch.zeros(1, device=part.device))  # moves its table there, which no graph must do
    compiled = Compiled("flow network", part.velocity, part.device.type == "cuda")

    def velocity(latent: Tensor, t: Tensor, conditions: Conditions, until: Tensor | None = None) -> Tensor:
        # How many rows are shared differs from clip to clip: each would be a shape of its own.
        return compiled(latent, t, dataclasses.replace(conditions, rows=None, row_of_frame=None), until)

    part.velocity = velocity
