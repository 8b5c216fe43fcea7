"""The flow network, on a feature store (paper, sections 3.2 and 4)."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmaudio import flow
from mmaudio.data.mixture import FeatureBatch, Mixture
from mmaudio.loading import load_clip_text, load_network
from mmaudio.model.lora import add_lora, merged_state, save_adapter
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SequenceSpec
from mmaudio.training.config import TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task
from mmaudio.training.tasks.setup import task_options
from mmaudio.training.tracking import Tracker
from mmaudio.variants import Variant, get_variant, network_metadata
from mmaudio.weights import fetch, find, fingerprint, read_metadata

TIME_BINS = 25
CODEC_KEY = "codec"  # metadata of a weight file: checksum of the codec whose latents it makes


@dataclass
class Options:
    seconds: float | None = None  # train on pieces of this length, cut anew at every step; None: whole clips
    drop: float = 0.1  # probability of each null condition
    independent: bool | None = None  # CLIP and sync dropped independently; None: as the variant's network (v2: yes)
    network: dict[str, Any] = field(default_factory=dict)  # what differs from the variant's MMAudioConfig


def build(config: TrainConfig, device: torch.device) -> Task:
    """The task from its configuration.

    Raises:
        ValueError, StoreError, WeightError: something does not fit; one line.
    """
    options = task_options(Options, config)
    start = get_variant(config.weights) if config.weights else None
    variant = get_variant(config.variant or (start.base if start else "small_16k"))
    variant = dataclasses.replace(variant, network=changed(variant.network, options.network))
    if any(v.network.guidance is not None or v.network.few_step for v in (start or variant, variant)):
        raise ValueError("a distilled network would unlearn what is in it: train its teacher, then task=distill")
    if start is not None:
        for name, value in vars(variant.network).items():
            if (own := getattr(start.network, name)) != value:
                raise ValueError(f"weights {config.weights} have {name} {own}, variant {variant.name} has {value}")
    identity = codec_identity(variant, start, config.weights_dir)
    train, validation = mixtures(config, variant, identity)

    if start is None:
        torch.manual_seed(config.seed)
        network = MMAudio(variant.network)
        set_constants(network, train, variant, config.weights_dir)
    else:
        network = load_network(start, config.weights_dir).requires_grad_(True)
        network.freeze_constants()
    also_write = None
    if config.lora.rank:
        seeded = torch.Generator().manual_seed(config.seed)
        add_lora(network, config.lora.rank, config.lora.alpha, config.lora.targets, seeded)

        def also_write(folder: Path, state: dict[str, Tensor]) -> None:
            save_adapter(folder / "adapter.safetensors", state, variant.network, variant.base)

    independent = variant.network.v2 if options.independent is None else options.independent
    return Task(
        name="flow",
        network=network,
        loss=FlowLoss(network, variant, options.drop, independent, device, options.seconds),
        train=train,
        validation=validation,
        file_name=Path(variant.files.network.local_names[0]).name,
        metadata=flow_metadata(variant, train),
        export=merged_state,
        also_write=also_write,
        blocks=lambda net: (*net.joint_blocks, *net.fused_blocks),
        preview=preview(config, variant, device) if config.preview.videos or config.preview.prompts else None,
    )


def mixtures(config: TrainConfig, variant: Variant, identity: dict[str, str]) -> tuple[Mixture, Mixture | None]:
    """`data.train` and `data.validation`. Raises StoreError if they do not suit the variant or each other."""
    train = Mixture(config.data.train)
    train.check_variant(variant, identity)
    validation = Mixture(config.data.validation) if config.data.validation else None
    if validation is not None:
        validation.check_variant(variant, train.identity | identity)
    return train, validation


def flow_metadata(variant: Variant, data: Mixture) -> dict[str, str]:
    """What the file of a network that learnt from `data` says of itself."""
    codec = {CODEC_KEY: data.identity["vae"]} if "vae" in data.identity else {}
    return network_metadata(variant) | codec


def changed(network: MMAudioConfig, changes: dict[str, Any]) -> MMAudioConfig:
    """ValueError for a field that is not there, or a value that it cannot have."""
    try:
        return dataclasses.replace(network, **changes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"task.network: {error}") from error


def codec_identity(variant: Variant, start: Variant | None, weights_dir: str | None = None) -> dict[str, str]:
    """Checksum of the codec that the latents must come from, as far as it is known here: see `Mixture.check_variant`.

    It is the one that the weights to start from were trained with, else the variant's own, if that is on this machine.
    """
    if start is not None:
        recorded = read_metadata(fetch(start.files.network, weights_dir)).get(CODEC_KEY)
        if recorded:
            return {"vae": recorded}
    path = find(variant.files.vae, weights_dir)
    return {} if path is None else {"vae": fingerprint(path)}


def set_constants(network: MMAudio, data: Mixture, variant: Variant, weights_dir: str | None = None) -> None:
    """What the network keeps of its data: latent statistics and the features of the empty string, if it uses them."""
    mean, std = data.latent_statistics()
    network.latent_mean.copy_(mean.view(1, 1, -1))
    network.latent_std.copy_(std.view(1, 1, -1))
    if network.config.missing != "default":
        return
    empty = data.empty_text()
    if empty is None:  # the reference's layout does not keep it
        from mmaudio.features.clip import ClipEncoder

        empty = ClipEncoder(None, load_clip_text(variant, weights_dir)).text([""])[0]
    network.empty_string_feat.copy_(empty)


class FlowLoss:
    """The training loss of a batch (SPEC of the method: paper, equation 2 and section 4).

    Null conditions: a network of the first version loses CLIP and sync features together, one of the second each by
    itself; the text always by itself. Latent statistics are copied, for the network's own may be sharded.

    seconds: train, and validate, on pieces of this length, cut anew at every step: a clip then costs less, so a step of
    the same cost sees more of them. ValueError if it is shorter than a Synchformer segment or longer than the clips.
    """

    def __init__(
        self, network: MMAudio, variant: Variant, drop: float, independent: bool, device: torch.device | str = "cpu",
        seconds: float | None = None,
    ):  # fmt: skip
        self.whole, self.drop, self.independent = variant.spec, drop, independent
        if seconds is not None and not self.whole.min_duration <= seconds <= self.whole.duration:
            limits = f"{self.whole.min_duration:g} to {self.whole.duration:g}"
            raise ValueError(f"task.seconds is {seconds:g}, expected {limits} s, or null for whole clips")
        self.spec = self.whole if seconds is None else self.whole.with_duration(seconds)
        self.drawn = variant.drawn_latents
        self.mean, self.std = (x.detach().clone().to(device) for x in (network.latent_mean, network.latent_std))

    def __call__(self, nets: Nets, batch: FeatureBatch, draw: Draw) -> Losses:
        batch = self.pieces(batch, draw)
        x1 = self.latents(batch, draw)
        t = flow.logit_normal(draw.normal())
        x0 = draw.normal(*x1.shape[1:])
        v = nets.network(flow.interpolate(x0, x1, t), t, **self.features(batch, draw))
        loss = flow.loss(v, x0, x1)  # (B,)
        return Losses(loss.mean(), by_time=binned(loss.detach(), t))

    def pieces(self, batch: FeatureBatch, draw: Draw) -> FeatureBatch:
        """A piece of each clip that begins with a Synchformer segment; cut at the nearest latent and frame. Or all."""
        whole, spec = self.whole, self.spec
        if spec == whole:
            return batch
        last = int((whole.duration - spec.duration) * whole.sync_fps / whole.sync_step + 1e-6)  # 5.44 s are 17 steps
        first = (draw.uniform() * (last + 1)).long()  # (B,)
        start = first * whole.sync_step / whole.sync_fps  # (B,) seconds
        latent = (start * whole.latent_rate).round().long().clamp(max=whole.latent_len - spec.latent_len)
        clip = (start * whole.clip_fps).round().long().clamp(max=whole.clip_len - spec.clip_len)
        sync = first * whole.sync_tokens_per_segment
        return dataclasses.replace(
            batch,
            mean=_cut(batch.mean, latent, spec.latent_len),
            std=_cut(batch.std, latent, spec.latent_len),
            clip=_cut(batch.clip, clip, spec.clip_len),
            sync=_cut(batch.sync, sync, spec.sync_len),
        )

    def latents(self, batch: FeatureBatch, draw: Draw) -> Tensor:
        """Normalised, (B, L, C): drawn from the codec's posterior, or its means."""
        latent = batch.mean.float()
        if self.drawn:
            latent = latent + batch.std.float() * draw.normal(*batch.mean.shape[1:])
        return (latent - self.mean) / self.std

    def features(self, batch: FeatureBatch, draw: Draw) -> dict[str, Tensor | SequenceSpec]:
        """The network's other arguments: features, and which of them are null."""
        no_clip = draw.uniform() < self.drop
        no_sync = draw.uniform() < self.drop if self.independent else no_clip
        no_text = draw.uniform() < self.drop
        return {
            "clip": batch.clip.float(), "sync": batch.sync.float(), "text": batch.text.float(), "spec": self.spec,
            "no_clip": no_clip | ~batch.video_exist, "no_sync": no_sync | ~batch.video_exist,
            "no_text": no_text | ~batch.text_exist,
        }  # fmt: skip


def _cut(x: Tensor, first: Tensor, length: int) -> Tensor:
    """Of each row of x (B, N, C) the `length` tokens from its `first` (B,) on, (B, length, C)."""
    index = first[:, None] + torch.arange(length, device=x.device)  # (B, length)
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def binned(loss: Tensor, t: Tensor) -> Tensor:
    """Sums and counts of per-sample losses in equal bins of t in [0, 1], (2, TIME_BINS)."""
    index = (t * TIME_BINS).long().clamp(0, TIME_BINS - 1)
    return torch.zeros(2, TIME_BINS, device=t.device).index_add(1, index, torch.stack([loss, torch.ones_like(loss)]))


def preview(config: TrainConfig, variant: Variant, device: torch.device, num_steps: int = 25):
    """Sound (and video) of a few clips through the `Pipeline` that users call."""
    videos, prompts = config.preview.videos, config.preview.prompts
    if videos and prompts and len(videos) != len(prompts):
        raise ValueError(f"preview has {len(videos)} videos and {len(prompts)} prompts: give one prompt for each video")
    absent = [name for name in map(Path, videos) if not name.is_file()]
    if absent:
        raise ValueError(f"preview video {absent[0]} does not exist")
    for part, file in variant.files.present.items():
        if part != "network" and find(file, config.weights_dir) is None:
            remedy = f"leave preview empty, or `mmaudio download {variant.name}`"
            raise ValueError(f"previews need {file.name}, which is not here: {remedy}")
    pairs = list(zip(videos or [None] * len(prompts), prompts or [""] * len(videos), strict=True))

    def run(state: dict[str, Tensor], step: int, folder: Path, tracker: Tracker) -> None:
        from mmaudio.codec.mel import MelSpectrogram
        from mmaudio.pipeline import Pipeline

        network = MMAudio(variant.network)
        network.load_state_dict(state)
        parts = {"network": network.eval()}
        pipeline = Pipeline(variant, device, parts=parts, weights_dir=config.weights_dir, low_memory=True)
        mel = MelSpectrogram(variant.mel)
        for i, (video, prompt) in enumerate(pairs):
            take = pipeline(video=video, prompt=prompt, seed=config.seed, num_steps=num_steps)[0]
            stem = folder / f"{step:08d}_{i}"
            take.save(stem.with_suffix(".flac"))
            if video is not None:
                take.save_video(stem.with_suffix(".mp4"))
            tracker.audio(f"preview/{i}", take.audio, take.sample_rate, step)
            tracker.spectrogram(f"preview/{i}", mel(take.audio)[0], step)

    return run
