"""What a variant is: sequence spec, network, codec, feature extractors and weight files. Adding one is one entry."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmaudio.codec.mel import MEL_16K, MEL_44K, MelConfig
from mmaudio.codec.vae import VAE_16K, VAE_44K, VAEConfig
from mmaudio.codec.vocoder import BIGVGAN_16K, BIGVGAN_44K, BigVGANConfig, GriffinLimConfig
from mmaudio.features.clip import CLIP_DFN5B_H14, ClipConfig
from mmaudio.features.synchformer import SynchformerConfig
from mmaudio.features.synchformer_audio import SynchformerAudioConfig
from mmaudio.features.synchformer_offset import OffsetHeadConfig, SynchformerModelConfig
from mmaudio.model.network import SIZES, MMAudioConfig
from mmaudio.sequence import SPEC_16K, SPEC_44K, SequenceSpec
from mmaudio.weights import CONFIG_KEY, OFFICIAL, WeightError, WeightFile, read_metadata

STEPS, FEW_STEPS = 25, 4  # of the solver: what is taken if nobody says; the most that a network for few steps is for


@dataclass(frozen=True)
class Files:
    """Where each part's weights are; a part that needs none (Griffin-Lim) has None."""

    network: WeightFile
    vae: WeightFile
    vocoder: WeightFile | None
    clip: WeightFile
    sync: WeightFile

    @property
    def present(self) -> dict[str, WeightFile]:
        return {part: file for part, file in vars(self).items() if file is not None}


@dataclass(frozen=True)
class Variant:
    name: str
    about: str
    spec: SequenceSpec
    network: MMAudioConfig
    mel: MelConfig
    vae: VAEConfig
    vocoder: BigVGANConfig | GriffinLimConfig
    clip: ClipConfig
    sync: SynchformerConfig
    sync_audio: SynchformerAudioConfig  # this and the head judge synchrony; making sound does not need them
    sync_head: OffsetHeadConfig
    files: Files
    licence: str
    pad_to: float = 0.0  # seconds; shorter clips are lengthened by their last frame, and the sound is cut again
    frame_rule: Literal["first", "nearest"] = "first"  # see media.read_video; as the training picked its frames
    made_for: str | None = None  # of a network from a file of one's own: the variant whose other parts it uses
    drawn_latents: bool = True  # its network learns draws from the codec's posterior; else the posterior's means
    few_step: WeightFile | None = None  # what makes its network one for few steps; it is used if it is there

    @property
    def num_steps(self) -> int:
        """Of the solver, if nobody says."""
        return FEW_STEPS if self.network.few_step else STEPS

    def files_by(self, by: str) -> dict[str, WeightFile]:
        """Of all that makes sound, if the steps are made by the part "network" or "few_step"."""
        return self.files.present | ({by: self.few_step} if by == "few_step" else {})

    @property
    def base(self) -> str:
        """Name in the table."""
        return self.made_for or self.name

    @property
    def synchformer(self) -> SynchformerModelConfig:
        return SynchformerModelConfig(self.sync, self.sync_audio, self.sync_head)

    @property
    def bundled(self) -> bool:
        return all(file.url is None for file in self.files.present.values())


def _official(name: str, about: str) -> Variant:
    is_16k = name.endswith("16k")
    return Variant(
        name=name,
        about=about,
        spec=SPEC_16K if is_16k else SPEC_44K,
        network=SIZES[name],
        mel=MEL_16K if is_16k else MEL_44K,
        vae=VAE_16K if is_16k else VAE_44K,
        vocoder=BIGVGAN_16K if is_16k else BIGVGAN_44K,
        clip=CLIP_DFN5B_H14,
        sync=SynchformerConfig(),
        sync_audio=SynchformerAudioConfig(),
        sync_head=OffsetHeadConfig(),
        files=Files(
            network=OFFICIAL[f"mmaudio_{name}.pth"],
            vae=OFFICIAL["v1-16.pth" if is_16k else "v1-44.pth"],
            vocoder=OFFICIAL["best_netG.pt" if is_16k else "bigvgan_v2_44khz_128band_512x.pt"],
            clip=OFFICIAL["DFN5B-CLIP-ViT-H-14-384.bin"],
            sync=OFFICIAL["synchformer_state_dict.pth"],
        ),
        licence="CC BY-NC 4.0 (flow network and VAE; see `mmaudio info`)",
    )


def _bundled(part: str) -> WeightFile:
    return WeightFile(f"tiny_16k_{part}.safetensors", url=None, licence="MIT")


TINY_16K = Variant(
    name="tiny_16k",
    about="bundled; trained from scratch on the Foley Stage (simulated scenes)",
    spec=SPEC_16K,
    network=SIZES["tiny_16k"],
    mel=MEL_16K,
    vae=VAEConfig(mel_dim=80, latent_dim=20, width=48),
    vocoder=GriffinLimConfig(MEL_16K, num_iterations=32),
    clip=ClipConfig(
        embed_dim=64,
        vision={"image_size": 64, "layers": 3, "width": 96, "head_width": 32, "patch_size": 8},
        text={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
        quick_gelu=True,
        frame_size=64,
    ),
    sync=SynchformerConfig(embed_dim=128, depth=4, num_heads=4, frame_size=64),
    sync_audio=SynchformerAudioConfig(embed_dim=128, depth=1, num_heads=4),
    sync_head=OffsetHeadConfig(embed_dim=128),
    files=Files(*(_bundled(part) for part in ("network", "vae")), None, *(_bundled(part) for part in ("clip", "sync"))),
    licence="MIT",
    pad_to=SPEC_16K.duration,  # the length that its training ended with
    frame_rule="nearest",
    drawn_latents=False,  # its codec's posteriors are wide: see docs/stage.md
    few_step=_bundled("few_step_lora"),
)

VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        TINY_16K,
        _official("small_16k", "16 kHz, the fastest official model"),
        _official("small_44k", "44.1 kHz, small"),
        _official("medium_44k", "44.1 kHz, medium"),
        _official("large_44k", "44.1 kHz, large"),
        _official("large_44k_v2", "44.1 kHz, large, second training; the best"),
    )
}

PREFERENCE = ("large_44k_v2", "large_44k", "medium_44k", "small_44k", "small_16k", "tiny_16k")  # best first


def get_variant(name: str | os.PathLike) -> Variant:
    """A variant by its name, or by the path of a flow network of one's own (.safetensors) or of the run that made it.

    Raises:
        ValueError: unknown name.
        WeightError: the file is no flow network, or does not say for which variant it is.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    path = Path(name)
    if str(name) and path.is_dir():
        return _of_file(_network_of_run(path))
    if path.is_file():
        return _of_file(path)
    if path.suffix in (".safetensors", ".pth", ".pt", ".bin") or len(path.parts) > 1:
        raise WeightError(f"{path}: no such file or folder")
    raise ValueError(
        f"unknown variant {str(name)!r}: expected one of {', '.join(VARIANTS)}, or the path of a weight file"
    )


def network_metadata(variant: Variant) -> dict[str, str]:
    """What a file of this variant's flow network must say for `get_variant` to take it by its path."""
    config = json.dumps(dataclasses.asdict(variant.network), sort_keys=True)
    return {"variant": variant.base, "part": "network", CONFIG_KEY: config}


def check_metadata(variant: Variant, path: str | os.PathLike) -> None:
    """WeightError if a file says something of its flow network that is not so of the variant's.

    The weights alone do not tell: guidance that is in them, for one, changes no key and no shape.
    """
    said = read_metadata(path).get(CONFIG_KEY)
    if said is None:
        return
    try:
        network = MMAudioConfig(**json.loads(said))
    except (TypeError, ValueError) as error:
        raise WeightError(f"{path}: {CONFIG_KEY} in its metadata cannot be used ({error})") from error
    for name, value in vars(variant.network).items():
        if (own := getattr(network, name)) != value:
            raise WeightError(
                f"{path}: says that its network has {name} {own}, {variant.name} has {value}; "
                "without --variant what it says is kept"
            )


def _of_file(path: Path) -> Variant:
    metadata = read_metadata(path)
    part, base = metadata.get("part", "network"), VARIANTS.get(metadata.get("variant", ""))
    if part == "lora":
        raise WeightError(f"{path}: is a LoRA adapter; name it with --lora, and its base with --variant")
    if part == "few_step":
        name = metadata.get("variant")
        raise WeightError(
            f"{path}: is no whole network; {name} uses it by itself, with --num_steps {FEW_STEPS} or less"
        )
    if part != "network":
        raise WeightError(f"{path}: holds a {part}, expected a flow network")
    if base is None:
        said = (
            f"was made for the unknown variant {metadata['variant']}" if "variant" in metadata else "names no variant"
        )
        raise WeightError(f"{path}: {said}; `mmaudio convert {path} --variant NAME` makes a file that can be used")
    try:
        network = base.network
        if CONFIG_KEY in metadata:  # of before there were the switches, or it says which
            before = {"sync_in_time": False, "unit_variance": False}
            network = dataclasses.replace(network, **before | json.loads(metadata[CONFIG_KEY]))
    except (TypeError, ValueError) as error:
        raise WeightError(f"{path}: {CONFIG_KEY} in its metadata cannot be used ({error})") from error
    for name in ("latent_dim", "clip_dim", "sync_dim", "text_dim", "text_len"):
        got, expected = getattr(network, name), getattr(base.network, name)
        if got != expected:
            raise WeightError(f"{path}: {name} is {got}, the other parts of {base.name} need {expected}")
    file = WeightFile(str(path.absolute()), url=None, licence=f"as its maker says; made for {base.name}")
    return dataclasses.replace(
        base,
        name=path.stem,
        about=f"from {path}, made for {base.name}",
        network=network,
        files=dataclasses.replace(base.files, network=file),
        made_for=base.name,
        few_step=None,
    )


def _network_of_run(folder: Path) -> Path:
    """The finished flow network of a training run: `weights/*.safetensors` holds one."""
    files = sorted((folder / "weights").glob("*.safetensors"))
    networks = [path for path in files if read_metadata(path).get("part") == "network"]
    if len(networks) != 1:
        found = (
            f"{len(networks)} flow networks ({', '.join(path.name for path in networks)})"
            if networks
            else "no flow network"
        )
        raise WeightError(f"{folder}: {found} in its folder weights, expected one; give the path of the file itself")
    return networks[0]
