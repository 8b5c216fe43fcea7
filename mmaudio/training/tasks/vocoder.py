"""BigVGAN, on sound, with the losses and critics of the `bigvgan` package."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vocoder import (
    BigVGANConfig,
    build_bigvgan,
    load_bigvgan_for_training,
    quiet_bigvgan,
    small_bigvgan,
)
from mmaudio.data.clips import ReadSound, SoundBatch
from mmaudio.training.config import TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task
from mmaudio.training.tasks.setup import chosen_variant, media_clips, metadata, positive, start_weights, task_options
from mmaudio.variants import Variant

PART = "vocoder"
LOWEST_PITCH = 32.7  # Hz; where the critics' constant-Q transforms begin
MIN_FRAMES = 8  # the longest window of the mel distance must fit
MAX_OCTAVES = 9  # of these transforms; fewer where the sample rate holds fewer


@dataclass
class Options:
    small: bool = False  # a vocoder of under a million parameters instead of the variant's own
    frames: int = 128  # mel frames in a training example: 1.5 s at 44.1 kHz, 2 s at 16 kHz
    mel_weight: float = 15.0  # of the multi-scale mel distance
    adversarial_start: int = 0  # step from which the critics play
    critic_width: float = 1.0  # times the channels of bigvgan's own 44.1 kHz critics


def build(config: TrainConfig, device: torch.device) -> Task:
    """The task from its configuration.

    Raises:
        ValueError, ManifestError, WeightError: something does not fit; one line.
    """
    options = task_options(Options, config)
    positive(critic_width=options.critic_width)
    if options.frames < MIN_FRAMES:
        raise ValueError(f"task.frames must be at least {MIN_FRAMES}, got {options.frames}")
    variant = chosen_variant(config)
    network_config = vocoder_config(variant, options.small)
    mel = network_config.mel
    read = ReadSound(mel.sample_rate, options.frames * mel.hop_length)
    train = media_clips(config.data.train, read, SoundBatch)
    validation = media_clips(config.data.validation, read, SoundBatch) if config.data.validation else None

    torch.manual_seed(config.seed)
    start = start_weights(config, PART)
    network = load_bigvgan_for_training(network_config, *start) if start else build_bigvgan(network_config)
    loss = VocoderLoss(MelSpectrogram(mel).to(device), options)
    file = variant.files.vocoder
    return Task(
        name="vocoder",
        network=network.to(device),
        loss=loss,
        train=train,
        validation=validation,
        file_name=file.local_names[0] if file and not options.small else f"{variant.base}_vocoder.safetensors",
        metadata=metadata(variant, PART, network_config),
        critic=build_critics(mel.sample_rate, options.critic_width).to(device),
        critic_loss=loss.critic_loss,
    )


def vocoder_config(variant: Variant, small: bool) -> BigVGANConfig:
    """Raises ValueError where the variant has no vocoder that could be trained."""
    if small:
        return small_bigvgan(variant.mel)
    if not isinstance(variant.vocoder, BigVGANConfig):
        raise ValueError(
            f"variant {variant.name} has no vocoder to train (it uses Griffin-Lim): set task.small=true for a small "
            "BigVGAN, or choose another variant"
        )
    return variant.vocoder


def build_critics(sample_rate: int, width: float) -> nn.Module:
    """Multi-period and multi-scale constant-Q critics, as bigvgan trains its second version.

    Calling it with real and generated sound, (B, 1, N) each, gives both lists of logits and both of feature maps.
    """
    octaves = min(MAX_OCTAVES, math.floor(math.log2(sample_rate / LOWEST_PITCH)))
    with quiet_bigvgan():
        from bigvgan.bigvgan import AttrDict
        from bigvgan.discriminators import (
            CombinedDiscriminator,
            MultiPeriodDiscriminator,
            MultiScaleSubbandCQTDiscriminator,
        )

        hparams = AttrDict(
            sampling_rate=sample_rate,
            mpd_reshapes=[2, 3, 5, 7, 11],
            use_spectral_norm=False,
            discriminator_channel_mult=width,
            cqtd_filters=max(1, round(128 * width)),
            cqtd_n_octaves=[octaves] * 3,
        )
        return CombinedDiscriminator([MultiPeriodDiscriminator(hparams), MultiScaleSubbandCQTDiscriminator(hparams)])


class VocoderLoss:
    """Multi-scale mel distance, least-squares adversarial loss and feature matching, all from the bigvgan package.

    Validation sees the mel distance alone.
    """

    def __init__(self, front_end: MelSpectrogram, options: Options):
        with quiet_bigvgan():
            from bigvgan import loss
        self.package = loss
        self.front_end, self.options = front_end, options
        self.mel_distance = loss.MultiScaleMelSpectrogramLoss(front_end.config.sample_rate)

    def generate(self, nets: Nets, batch: SoundBatch) -> Tensor:  # (B, 1, N)
        with torch.autocast(batch.wave.device.type, enabled=False):
            mel = self.front_end(batch.wave)  # (B, M, F)
        return nets.network(mel).float()

    def __call__(self, nets: Nets, batch: SoundBatch, draw: Draw) -> Losses:
        real, fake = batch.wave[:, None], self.generate(nets, batch)
        with torch.autocast(real.device.type, enabled=False):
            mel = self.mel_distance(real, fake)
        total, parts = self.options.mel_weight * mel, {"mel": mel}
        if nets.critic is not None and nets.network.training and draw.step >= self.options.adversarial_start:
            _, verdicts, real_features, fake_features = nets.critic(real, fake)
            parts["features"] = self.package.feature_loss(real_features, fake_features)
            parts["adversarial"], _ = self.package.generator_loss(verdicts)
            total = total + parts["features"] + parts["adversarial"]
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def critic_loss(self, nets: Nets, batch: SoundBatch, draw: Draw) -> Losses:
        if draw.step < self.options.adversarial_start:
            return Losses(torch.zeros((), device=draw.device))
        with torch.no_grad():
            fake = self.generate(nets, batch)
        real_verdicts, fake_verdicts, _, _ = nets.critic(batch.wave[:, None], fake)
        total, _, _ = self.package.discriminator_loss(real_verdicts, fake_verdicts)
        return Losses(total, {"critic": total.detach()})
