"""What a variant is: sequence spec, network, codec, feature extractors and weight files. Adding one is one entry."""

from dataclasses import dataclass
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
from mmaudio.weights import OFFICIAL, WeightFile


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
    about="bundled; trained from scratch on the Foley Stage (simulated impacts)",
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
    sync_audio=SynchformerAudioConfig(embed_dim=128, depth=4, num_heads=4),
    sync_head=OffsetHeadConfig(embed_dim=128, num_heads=4),
    files=Files(*(_bundled(part) for part in ("network", "vae")), None, *(_bundled(part) for part in ("clip", "sync"))),
    licence="MIT",
    pad_to=SPEC_16K.duration,  # its training saw no other length
    frame_rule="nearest",
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


def get_variant(name: str) -> Variant:
    """Raises ValueError naming the known variants."""
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}: expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
