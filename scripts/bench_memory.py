"""How much memory a generation needs, part by part, counted without weights, without a GPU and in seconds.

    python scripts/bench_memory.py                          # all variants, 8 s, bfloat16
    python scripts/bench_memory.py large_44k --duration 12 --dtype float32

Every part of the pipeline runs at its real sizes on tensors that have shapes but no data, and what they would hold is
added up operation by operation, as they come and go. That is what tensors hold; a GPU's allocator rounds it up, its
libraries want workspace, and the driver some hundreds of MiB. Attention is counted as the kind that never holds all
scores at once, and nothing is swapped for the faster layers of a CPU, so the figures are those of a GPU. Griffin-Lim,
the vocoder of tiny_16k, is left out. "all" is the default way: every part stays, guidance is one batch of two.
"low_memory" holds one part at a time and makes two passes.
"""

import argparse
import dataclasses
import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from mmaudio.codec.vae import VAE
from mmaudio.codec.vocoder import BigVGANConfig, build_bigvgan, fold_weight_norm
from mmaudio.data.mixture import row_shapes
from mmaudio.features.clip import ClipEncoder, build_text, build_vision, causal_mask
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.model.network import MMAudio
from mmaudio.variants import VARIANTS, Variant

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MIB = 2**20
WITHOUT_DATA = FakeTensorMode()  # one for all: the package keeps tables, and those of one mode are none for another


class Held(TorchDispatchMode):
    """Bytes of the tensors that come into being under it: now, and at most."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor):  # was there before
                self.known.setdefault(x.untyped_storage(), True)
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and (storage := x.untyped_storage()) not in self.known:
                self.known[storage] = True
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.release, storage.nbytes())
        return result

    def release(self, count: int) -> None:
        self.now -= count


def held(run: Callable[[], object]) -> int:
    """Bytes at most while `run` runs, beyond what was there before."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation whose insides are not seen
    try:
        with torch.inference_mode(), Held() as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.most


def size(*modules: nn.Module) -> int:
    tensors = {id(x): x for module in modules for x in (*module.parameters(), *module.buffers())}
    return sum(x.numel() * x.element_size() for x in tensors.values())


def parts(v: Variant, duration: float, dtype: torch.dtype) -> dict[str, dict[str, int]]:
    """Of every part of the pipeline: bytes of weights, and of what it computes at most, also in two passes."""
    spec, c, found = v.spec.with_duration(duration), v.network, {}

    def add(name: str, modules: list[nn.Module], *runs: Callable[[], object]) -> None:
        most = [held(run) for run in runs]
        found[name] = {"weights": size(*modules), "activations": most[0], "in two passes": most[-1]}

    def zeros(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.zeros(*shape, dtype=dtype)

    def built(make: Callable[[], nn.Module]) -> nn.Module:
        """Made in `dtype` at once: tensors without data cannot be converted in place."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return make().eval()
        finally:
            torch.set_default_dtype(before)

    with WITHOUT_DATA:
        vision, text = built(lambda: build_vision(v.clip)), built(lambda: build_text(v.clip))
        frames = zeros(1, spec.clip_len, 3, v.clip.frame_size, v.clip.frame_size, dtype=torch.uint8)
        add("CLIP, image", [vision], lambda: ClipEncoder(vision, None).image(frames))
        prompts, mask = zeros(2, c.text_len, v.clip.text["width"]), causal_mask(c.text_len).to(dtype)
        add("CLIP, text", [text], lambda: text.transformer(prompts, attn_mask=mask))

        sync = built(lambda: SynchformerVisual(v.sync))
        pictures = zeros(1, spec.sync_frames, 3, v.sync.frame_size, v.sync.frame_size, dtype=torch.uint8)
        add("Synchformer", [sync], lambda: sync.encode(pictures))

        network = built(lambda: MMAudio(c))
        shapes = row_shapes(dataclasses.replace(v, spec=spec))
        features = [zeros(1, *shapes[name]) for name in ("clip", "sync", "text")]
        noise, t = zeros(1, spec.latent_len, c.latent_dim), torch.zeros(1)

        def step(two_passes: bool) -> list[Tensor]:
            one, other = network.encode_conditions(*features, spec), network.null_conditions(1, spec)
            return [network.velocity(noise, t, each) for each in ((one, other) if two_passes else [one.concat(other)])]

        add("flow network", [network], lambda: step(False), lambda: step(True))

        vae = built(lambda: VAE(v.vae)).fold()
        latents = zeros(1, v.vae.latent_dim, spec.latent_len)
        if isinstance(v.vocoder, BigVGANConfig):
            vocoder = fold_weight_norm(built(lambda: build_bigvgan(v.vocoder)))
            add("codec", [vae, vocoder], lambda: vocoder(vae.decode(latents)))
        else:
            add("codec", [vae], lambda: vae.decode(latents))
    return found


def totals(found: dict[str, dict[str, int]]) -> dict[str, int]:
    weights = sum(part["weights"] for part in found.values())
    return {
        "all": weights + max(part["activations"] for part in found.values()),
        "low_memory": max(part["weights"] + part["in two passes"] for part in found.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS) + "; default: all")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds (8)")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16", help="bfloat16, as on CUDA")
    parser.add_argument("--json", type=Path, help="also write the figures here, in bytes")
    args = parser.parse_args()
    if unknown := [name for name in args.variants if name not in VARIANTS]:
        parser.error(f"unknown variant {unknown[0]!r}: expected some of {', '.join(VARIANTS)}")
    names, report = args.variants or list(VARIANTS), {}
    shortest = max(VARIANTS[name].spec.min_duration for name in names)
    if not shortest <= args.duration < float("inf"):
        parser.error(f"--duration {args.duration:g}: expected {shortest:g} s or more")
    for name in names:
        found = parts(VARIANTS[name], args.duration, DTYPES[args.dtype])
        report[name] = {"parts": found, **totals(found)}
        print(f"{name}, {args.duration:g} s, {args.dtype}, MiB")
        print(f"  {'':14s} {'weights':>8s} {'activations':>12s} {'in two passes':>14s}")
        for part, bytes_of in found.items():
            print(f"  {part:14s} " + "{:8.0f} {:12.0f} {:14.0f}".format(*(x / MIB for x in bytes_of.values())))
        print(f"  all {report[name]['all'] / MIB:.0f}, low_memory {report[name]['low_memory'] / MIB:.0f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
