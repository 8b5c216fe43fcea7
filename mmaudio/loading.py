"""Build the parts of a variant and fill them from weight files: on the meta device first, so nothing is held twice."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.fast_vocoder import fast_bigvgan
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vae import VAE, MPConv1d
from mmaudio.codec.vocoder import BigVGANConfig, GriffinLim, load_bigvgan
from mmaudio.compilation import compile_part
from mmaudio.fast_conv import MIN_CHANNELS, FastConv1d, FastConv1dChannelsFirst, suits
from mmaudio.features.clip import build_text, build_vision
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.features.synchformer_offset import Synchformer, own_key
from mmaudio.model.difference import added, mismatch, read_config
from mmaudio.model.layers import ChannelLastConv1d
from mmaudio.model.lora import load_adapter, read_adapter
from mmaudio.model.network import LEGACY_KEYS, MMAudio
from mmaudio.variants import Variant
from mmaudio.weights import WeightError, WeightFile, fetch, load_strict, read_state

WeightsDir = str | os.PathLike | None
PARTS = ("network", "few_step", "codec", "clip_text", "clip_vision", "sync")
DRAWS = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "erfinv_", "clamp_"}


class _WithoutDraws(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in DRAWS and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """What is built in here has shapes and no values: on the meta device, and nothing is drawn.

    The first draw on that device would import torch's compiler, which takes as long as all of torch.
    """
    with torch.device("meta"), _WithoutDraws():
        yield


def _fill(build, file: WeightFile, weights_dir: WeightsDir, **options) -> nn.Module:
    path = fetch(file, weights_dir)
    with unfilled():
        module = build()
    load_strict(module, read_state(path), source=path, **options)
    return module.eval().requires_grad_(False)


def load_network(
    variant: Variant, weights_dir: WeightsDir = None, lora: Sequence[str | os.PathLike] = (), lora_strength: float = 1.0
) -> MMAudio:
    """The flow network, with the adapters of these files added to its weights."""
    network = _fill(lambda: MMAudio(variant.network), variant.files.network, weights_dir, drop=LEGACY_KEYS)
    for path in lora:
        load_adapter(network, path, lora_strength)
    return network


def load_few_step(variant: Variant, weights_dir: WeightsDir = None) -> MMAudio:
    """The flow network with what makes it one for few steps. The variant must name such a file.

    Raises:
        WeightError: a file is missing or damaged, or one is not for the other.
    """
    weights, path = (fetch(file, weights_dir) for file in (variant.files.network, variant.few_step))
    if problem := mismatch(path, variant.network, weights):
        raise WeightError(f"{path}: {problem}; use it with the network that it was made from")
    with unfilled():
        network = MMAudio(read_config(path))
    load_strict(network, added(read_state(weights), read_state(path), path), source=path, drop=LEGACY_KEYS)
    return network.eval().requires_grad_(False)


def check_network(variant: Variant, state: Mapping[str, Tensor], source: str | os.PathLike) -> None:
    """WeightError, naming `source`, unless this is the state of a flow network of the variant's sizes."""
    load_strict(_meta_network(variant), state, source=source, drop=LEGACY_KEYS)


def check_adapter(variant: Variant, path: str | os.PathLike) -> None:
    """WeightError unless the file holds a LoRA adapter for this variant's network."""
    read_adapter(_meta_network(variant), path)


def _meta_network(variant: Variant) -> MMAudio:
    with unfilled():
        return MMAudio(variant.network)


def load_vae(variant: Variant, weights_dir: WeightsDir = None) -> VAE:
    """Folded for inference, in float32."""
    return _fill(lambda: VAE(variant.vae), variant.files.vae, weights_dir).fold()


def load_codec(variant: Variant, weights_dir: WeightsDir = None, dtype: torch.dtype = torch.float32) -> AudioCodec:
    """VAE and vocoder; weight norms are folded in float32 before the cast to `dtype`. The mel stays float32."""
    vae = load_vae(variant, weights_dir).to(dtype)
    if isinstance(variant.vocoder, BigVGANConfig):
        path: Path = fetch(variant.files.vocoder, weights_dir)
        vocoder = load_bigvgan(variant.vocoder, read_state(path), source=str(path)).requires_grad_(False).to(dtype)
    else:
        vocoder = GriffinLim(variant.vocoder)
    return AudioCodec(MelSpectrogram(variant.mel), vae, vocoder)


def load_part(
    name: str, variant: Variant, weights_dir: WeightsDir, device: torch.device, dtype: torch.dtype, *,
    lora: Sequence[str | os.PathLike] = (), lora_strength: float = 1.0, fast: bool = True, compiled: bool = False,
) -> nn.Module:  # fmt: skip
    """One of `PARTS` on the device, in `dtype`.

    If it is `fast`, `speed_up` has been at it where it can be; encoders are never `compiled`.
    """
    if name == "codec":  # folds weight norms in float32 before its cast
        part = load_codec(variant, weights_dir, dtype).to(device)
    elif name == "network":
        part = load_network(variant, weights_dir, lora, lora_strength).to(device, dtype)
    elif name == "few_step":
        part = load_few_step(variant, weights_dir).to(device, dtype)
    else:
        load = {"clip_text": load_clip_text, "clip_vision": load_clip_vision, "sync": load_sync}[name]
        return load(variant, weights_dir).to(device, dtype)
    if fast and device.type == "cpu" and dtype == torch.float32:
        speed_up(part)
    if compiled:
        compile_part(part)
    return part


def speed_up(part: MMAudio | AudioCodec) -> None:
    """Swap layers for others of the same results and fewer multiplications: for inference in float32 on a CPU.

    The swapped weights take up to twice the memory, and the part's state is no longer that of its file.
    """
    if isinstance(part, AudioCodec):
        for level in (part.vae.decoder.mid, part.vae.decoder.up):
            for name, layer in list(level.named_modules()):
                if _wide(layer):
                    level.set_submodule(name, FastConv1dChannelsFirst(layer.weight))
        if not isinstance(part.vocoder, GriffinLim):
            fast_bigvgan(part.vocoder)
        return
    for every_step in (part.audio_input_proj, part.joint_blocks, part.fused_blocks):
        for name, layer in list(every_step.named_modules()):
            if suits(layer):
                kind = FastConv1d if isinstance(layer, ChannelLastConv1d) else FastConv1dChannelsFirst
                every_step.set_submodule(name, kind(layer.weight, layer.bias, layer.dilation[0]))


def _wide(layer: nn.Module) -> bool:
    """Whether it is one of the VAE's convolutions that gain by it."""
    if not isinstance(layer, MPConv1d):
        return False
    *channels, kernel = layer.weight.shape
    return kernel > 1 and min(channels) >= MIN_CHANNELS


def load_clip_text(variant: Variant, weights_dir: WeightsDir = None) -> nn.Module:
    return _fill(
        lambda: build_text(variant.clip), variant.files.clip, weights_dir,
        rename=lambda key: None if key.startswith("visual.") else key,
    )  # fmt: skip


def load_clip_vision(variant: Variant, weights_dir: WeightsDir = None) -> nn.Module:
    return _fill(
        lambda: build_vision(variant.clip), variant.files.clip, weights_dir,
        rename=lambda key: key.removeprefix("visual.") if key.startswith("visual.") else None,
    )  # fmt: skip


def load_sync(variant: Variant, weights_dir: WeightsDir = None) -> SynchformerVisual:
    """The visual half only, which is all that making sound needs."""
    return _fill(
        lambda: SynchformerVisual(variant.sync), variant.files.sync, weights_dir,
        rename=lambda key: key if key.startswith("vfeat_extractor.") else None,
    )  # fmt: skip


def load_synchformer(variant: Variant, weights_dir: WeightsDir = None) -> Synchformer:
    """Picture, sound and offset head, to judge synchrony; the bundled file has the visual half only."""
    return _fill(lambda: Synchformer(variant.synchformer), variant.files.sync, weights_dir, rename=own_key)
