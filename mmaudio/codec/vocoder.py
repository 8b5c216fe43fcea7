"""Log-mel to waveform: BigVGAN (both official vocoders and small ones), or Griffin-Lim where no vocoder is trained."""

import contextlib
import io
import sys
import warnings
from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn

from mmaudio.codec.mel import MEL_16K, MEL_44K, MelConfig, MelSpectrogram
from mmaudio.weights import load_strict, normalise_weight_norm


@dataclass(frozen=True)
class BigVGANConfig:
    mel: MelConfig
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    final_tanh: bool  # tanh and a bias at the end (16 kHz), or a clamp to [-1, 1] without bias (44.1 kHz)
    upsample_initial_channel: int = 1536
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3


BIGVGAN_16K = BigVGANConfig(
    mel=MEL_16K, upsample_rates=(4, 4, 2, 2, 2, 2), upsample_kernel_sizes=(8, 8, 4, 4, 4, 4), final_tanh=True
)
BIGVGAN_44K = BigVGANConfig(
    mel=MEL_44K, upsample_rates=(8, 4, 2, 2, 2, 2), upsample_kernel_sizes=(16, 8, 4, 4, 4, 4), final_tanh=False
)


def small_bigvgan(mel: MelConfig) -> BigVGANConfig:
    """A vocoder of under a million parameters, for training where time is short and no official vocoder is wanted."""
    rates = (8, 8, mel.hop_length // 64)
    return BigVGANConfig(
        mel=mel,
        upsample_rates=rates,
        upsample_kernel_sizes=tuple(2 * rate for rate in rates),
        final_tanh=True,
        upsample_initial_channel=128,
        resblock_kernel_sizes=(3, 7),
        resblock_dilation_sizes=((1, 3, 5),) * 2,
    )


@dataclass(frozen=True)
class GriffinLimConfig:
    mel: MelConfig
    num_iterations: int = 64
    momentum: float = 0.99


@contextlib.contextmanager
def quiet_bigvgan():
    """Around imports from the bigvgan package and its constructors: they print, and importing it switches matplotlib's
    backend, which would silence plots in a notebook.
    """
    matplotlib = sys.modules.get("matplotlib")
    backend = matplotlib.get_backend() if matplotlib else None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    if backend is not None:
        matplotlib.use(backend)


def build_bigvgan(config: BigVGANConfig) -> nn.Module:
    """The package's generator with weight norm applied (old style: `weight_g`, `weight_v`), weights random.

    Maps log-mel (B, M, F) to a waveform (B, 1, F * hop_length) in [-1, 1].
    """
    with quiet_bigvgan():
        from bigvgan.bigvgan import AttrDict, BigVGAN

        hparams = AttrDict(
            num_mels=config.mel.num_mels,
            sampling_rate=config.mel.sample_rate,
            upsample_rates=list(config.upsample_rates),
            upsample_kernel_sizes=list(config.upsample_kernel_sizes),
            upsample_initial_channel=config.upsample_initial_channel,
            resblock="1",
            resblock_kernel_sizes=list(config.resblock_kernel_sizes),
            resblock_dilation_sizes=[list(d) for d in config.resblock_dilation_sizes],
            activation="snakebeta",
            snake_logscale=True,
            use_tanh_at_final=config.final_tanh,
            use_bias_at_final=config.final_tanh,
        )
        return BigVGAN(hparams, use_cuda_kernel=False)


def fold_weight_norm(generator: nn.Module) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints here
        generator.remove_weight_norm()
    return generator


def load_bigvgan(config: BigVGANConfig, state: dict[str, Tensor], source: str) -> nn.Module:
    """Generator with weight norm folded (in float32), from any of the three key layouts in circulation.

    Raises:
        WeightError: keys or shapes are not those of `config`.
    """
    state, style = normalise_weight_norm(state)
    with torch.device("meta"):
        generator = build_bigvgan(config)
    with quiet_bigvgan():
        from bigvgan.alias_free_activation.torch.resample import UpSample1d
    same = UpSample1d(ratio=2, kernel_size=12).filter  # a constant, of all activations and both directions
    filters = {key: same for key in generator.state_dict() if key.endswith(".filter")}
    if style == "folded":
        fold_weight_norm(generator)
    load_strict(generator, {**state, **filters}, source=source)
    if style != "folded":
        fold_weight_norm(generator)
    return generator.eval()


def load_bigvgan_for_training(config: BigVGANConfig, state: dict[str, Tensor], source: str) -> nn.Module:
    """As `load_bigvgan`, with weight norm left in place; a folded file's weights are taken apart again.

    Raises:
        WeightError: keys or shapes are not those of `config`.
    """
    state, style = normalise_weight_norm(state)
    generator = build_bigvgan(config)
    own = generator.state_dict()
    if style == "folded":
        for key in [key for key in own if key.endswith(".weight_v")]:
            weight = state.pop(key.removesuffix("_v"), None)
            if weight is not None:
                norm = torch.linalg.vector_norm(weight.float(), dim=(1, 2), keepdim=True)
                state |= {key: weight, key.removesuffix("_v") + "_g": norm}
    filters = {k: v for k, v in own.items() if k.endswith(".filter")}
    load_strict(generator, {**state, **filters}, source=source)
    return generator


class GriffinLim(nn.Module):
    """Mel inversion without learned weights: non-negative least squares to linear magnitudes, then Griffin-Lim.

    Deterministic: the phases start from zero. Maps log-mel (B, M, F) to (B, 1, F * hop_length).
    """

    def __init__(self, config: GriffinLimConfig):
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(config.mel)
        self.register_buffer("inverse_basis", torch.linalg.pinv(self.mel.mel_basis), persistent=False)

    def linear_magnitude(self, mel: Tensor, iterations: int = 30) -> Tensor:
        """(B, M, F) log-mel to (B, n_fft / 2 + 1, F): multiplicative updates keep every bin non-negative."""
        basis, target = self.mel.mel_basis, self.mel.to_magnitude(mel.float())
        x = (self.inverse_basis @ target).clamp(min=1e-6)
        spread = basis.T @ target
        for _ in range(iterations):
            x = x * spread / (basis.T @ (basis @ x)).clamp(min=1e-9)
        return x

    def forward(self, mel: Tensor) -> Tensor:
        c = self.config.mel
        length = mel.shape[-1] * c.hop_length
        # torchaudio's STFT is centred, ours is padded by (n_fft - hop) / 2: frame i is centred half a hop later
        magnitude = self.linear_magnitude(mel)
        magnitude = torch.cat([magnitude[..., :1], magnitude], dim=-1)
        wave = torchaudio.functional.griffinlim(
            magnitude,
            window=self.mel.window,
            n_fft=c.n_fft,
            hop_length=c.hop_length,
            win_length=c.n_fft,
            power=1.0,
            n_iter=self.config.num_iterations,
            momentum=self.config.momentum,
            length=None,
            rand_init=False,
        )
        offset = c.hop_length // 2
        wave = wave[..., offset : offset + length]
        return nn.functional.pad(wave, (0, length - wave.shape[-1])).clamp(-1, 1).unsqueeze(1)
