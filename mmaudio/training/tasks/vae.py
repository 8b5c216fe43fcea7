"""The mel VAE, on sound: reconstruction, KL and an adversary (paper, appendix F; layers in `codec.vae`)."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from tqdm import tqdm

from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vae import VAE, Gaussian
from mmaudio.data.clips import MediaClips, ReadSound, SoundBatch
from mmaudio.data.loader import loader
from mmaudio.data.sampler import Item, derived_seed
from mmaudio.training.config import TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task
from mmaudio.training.tasks.setup import (
    chosen_variant,
    media_clips,
    metadata,
    positive,
    rank_and_world,
    start_weights,
    task_options,
)
from mmaudio.weights import load_strict

PART = "vae"
STATISTICS_BATCH = 16  # clips
QUIET = 3.0  # decades of magnitude: 60 dB
MAX_BALANCE = 1e4  # of the adaptive weight: a critic without an opinion must not be amplified without end
MIN_STD = 0.01  # of a mel bin: in data without highs a bin may never leave the floor


@dataclass
class Options:
    seconds: float = 4.0  # of sound in a training example
    kl_weight: float = 0.003  # of the posterior's KL divergence per latent number, against L1 + MSE per mel number
    quiet_weight: float = 1.0  # of what is 60 dB below a piece's loudest, against 1 of the loudest; see `audible`
    adversarial_weight: float = 0.5  # pull of the critic on a reconstruction, against that of L1 + MSE; 0: no critic
    adversarial_start: int = 20_000  # step from which the critic plays; pictures of the sound come first, then detail
    critic_width: int = 64  # channels of the critic's first layer
    statistics_clips: int = 512  # clips that the mean and standard deviation of each mel bin are taken from


def build(config: TrainConfig, device: torch.device) -> Task:
    """The task from its configuration.

    Raises:
        ValueError, ManifestError, MediaError, WeightError: something does not fit; one line.
    """
    options = task_options(Options, config)
    positive(seconds=options.seconds, statistics_clips=options.statistics_clips, critic_width=options.critic_width)
    if config.strategy != "ddp":
        raise ValueError(
            f"task vae cannot be trained with strategy={config.strategy}: forced weight normalisation overwrites whole "
            "weights; set strategy=ddp"
        )
    variant = chosen_variant(config)
    front_end = MelSpectrogram(variant.mel)
    read = ReadSound(variant.mel.sample_rate, piece_samples(options.seconds, front_end))
    train = media_clips(config.data.train, read, SoundBatch)
    validation = media_clips(config.data.validation, read, SoundBatch) if config.data.validation else None

    torch.manual_seed(config.seed)
    vae = VAE(variant.vae)
    critic = MelCritic(options.critic_width) if options.adversarial_weight else None
    start = start_weights(config, PART)
    if start is not None:
        load_strict(vae, start[0], source=start[1])
    else:
        vae.data_mean, vae.data_std = mel_statistics(train, front_end, options.statistics_clips, config)
    loss = VAELoss(front_end.to(device), vae, options)
    return Task(
        name="vae",
        network=vae.to(device),
        loss=loss,
        train=train,
        validation=validation,
        file_name=variant.files.vae.local_names[0],
        metadata=metadata(variant, PART, variant.vae),
        critic=critic and critic.to(device),
        critic_loss=critic and loss.critic_loss,
    )


def piece_samples(seconds: float, front_end: MelSpectrogram) -> int:
    """Samples of a piece whose mel frames come in pairs, as the VAE halves their rate."""
    hop = front_end.config.hop_length
    return max(1, round(seconds * front_end.config.sample_rate / hop / 2)) * 2 * hop


@torch.no_grad()
def mel_statistics(
    clips: MediaClips, front_end: MelSpectrogram, limit: int, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each mel bin over a piece of each of the first clips, (1, M, 1) both.

    Every rank reads the same pieces of the same clips, so all come to the same numbers.
    """
    items = [Item(row, derived_seed(config.seed, row)) for row in clips.order(0, config.seed)[:limit].tolist()]
    batches = [items[i : i + STATISTICS_BATCH] for i in range(0, len(items), STATISTICS_BATCH)]
    count, total, squares = 0, 0.0, 0.0
    silent = rank_and_world()[0] > 0 or None  # None: shown on a terminal
    with tqdm(total=len(items), desc="mel statistics", unit="clip", disable=silent) as bar:
        for batch in loader(clips, batches, config.num_workers):
            mel = front_end(batch.wave).double()  # (B, M, F)
            count += mel.shape[0] * mel.shape[2]
            total = total + mel.sum((0, 2))
            squares = squares + mel.square().sum((0, 2))
            bar.update(len(batch))
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=MIN_STD**2).sqrt()
    return mean.float().view(1, -1, 1), std.float().view(1, -1, 1)


class VAELoss:
    """L1 + MSE of the standardised log-mel, KL to the unit normal, and the opinion of the critic.

    Validation sees the distances alone: the critic's opinion of one step cannot be compared with that of another.
    """

    def __init__(self, front_end: MelSpectrogram, vae: VAE, options: Options):
        self.front_end, self.vae, self.options = front_end, vae, options
        self.decade = 1.0 if front_end.config.log10 else math.log(10)  # a factor of ten in the variant's log-mel

    def reconstruct(self, nets: Nets, batch: SoundBatch, draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.autocast(batch.wave.device.type, enabled=False):
            mel = self.front_end(batch.wave)  # (B, M, F)
        return nets.network(mel, draw.normal(self.vae.config.latent_dim, mel.shape[-1] // 2))

    def __call__(self, nets: Nets, batch: SoundBatch, draw: Draw) -> Losses:
        x, y, mean, std = self.reconstruct(nets, batch, draw)
        weight = self.audible(x)
        l1, mse = (weight * (y - x).abs()).mean(), (weight * (y - x).square()).mean()
        kl = Gaussian(mean, std).kl().mean() / mean[0].numel()
        total = l1 + mse + self.options.kl_weight * kl
        parts = {"l1": l1, "mse": mse, "kl": kl}
        if nets.critic is not None and nets.network.training and draw.step >= self.options.adversarial_start:
            doubt = -nets.critic(y).float().flatten(1).mean(dim=1)  # (B,)
            balance = (pull(l1 + mse, y) / (pull(doubt.mean(), y) + 1e-8)).clamp(max=MAX_BALANCE)
            parts["adversarial"] = doubt.mean()
            total = total + self.options.adversarial_weight * (balance * doubt).mean()
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def audible(self, x: Tensor) -> Tensor | float:
        """Weights of the standardised log-mel x (B, M, F), of mean 1 in each row: less for what is less heard.

        The faint noise of a room is random and everywhere; without weights most of a small model is spent on it.
        """
        quiet = self.options.quiet_weight
        if quiet == 1:
            return 1.0
        with torch.no_grad():
            level = (x * self.vae.data_std + self.vae.data_mean) / self.decade  # factors of ten
            below = level.amax((1, 2), keepdim=True) - level
            weight = 1 - (1 - quiet) * (below / QUIET).clamp(max=1)
            return weight / weight.mean((1, 2), keepdim=True)

    def critic_loss(self, nets: Nets, batch: SoundBatch, draw: Draw) -> Losses:
        """Hinge loss: above 1 for what is real, below -1 for what is not."""
        if draw.step < self.options.adversarial_start:
            return Losses(torch.zeros((), device=draw.device))
        with torch.no_grad():
            x, y, _, _ = self.reconstruct(nets, batch, draw)
        real, fake = nets.critic(torch.cat([x, y])).float().chunk(2)
        total = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
        return Losses(total, {"critic": total.detach(), "critic_real": real.detach().mean()})


def pull(loss: Tensor, y: Tensor) -> Tensor:
    """Norm of the gradient that each row of y (B, ...) gets from a loss, (B,).

    Taken at the network's output, so no parameter is touched; per row, so micro-batches change nothing.
    """
    (gradient,) = torch.autograd.grad(loss, y, retain_graph=True)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


class MelCritic(nn.Module):
    """Whether patches of standardised log-mel are real: (B, M, F) to logits (B, 1, M / 8, F / 8).

    Weights, not activations, are normalised: a clip is judged alone, in a batch of any size.
    """

    def __init__(self, width: int):
        super().__init__()
        widths = [1, width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)) for before, after in pairwise(widths)
        )
        self.layers.append(weight_norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1)))
        self.verdict = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, mel: Tensor) -> Tensor:
        x = mel[:, None]  # (B, 1, M, F)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.verdict(x)
