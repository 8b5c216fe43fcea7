"""1-D magnitude-preserving VAE between log-mel spectrograms and latents (paper, section 3.4 and appendix).

The layers follow the equations of EDM2 (Karras et al., 2024, section 2.3 and appendix B): weights and activations are
kept at unit magnitude, so that no norm layers are needed.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

EPS = 1e-4
CLAMP = 256.0  # activations of the reference never leave this range


@dataclass(frozen=True)
class VAEConfig:
    mel_dim: int
    latent_dim: int
    width: int  # channels of the first level; the three levels have 1, 2 and 4 times as many

    multipliers: tuple[int, ...] = (1, 2, 4)
    encoder_blocks: int = 2  # residual blocks per level
    decoder_blocks: int = 3
    resample_level: int = 0  # the time axis is halved after this level of the encoder


VAE_16K = VAEConfig(mel_dim=80, latent_dim=20, width=384)
VAE_44K = VAEConfig(mel_dim=128, latent_dim=40, width=512)


def normalize(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Divide by the root mean square over `dims` (EDM2, equation 66), in float32."""
    norm = torch.linalg.vector_norm(x.float(), dim=dims, keepdim=True)
    return x / (EPS + norm * (norm.numel() / x.numel()) ** 0.5).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU scaled to unit magnitude for unit normal input (EDM2, equation 81)."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float = 0.3) -> Tensor:
    """Magnitude-preserving mix of a and b (EDM2, equation 88)."""
    return ((1 - t) * a + t * b) / ((1 - t) ** 2 + t**2) ** 0.5


class MPConv1d(nn.Module):
    """Convolution with unit-magnitude weights and no bias (EDM2, equations 47 and 66).

    In training mode every forward first overwrites the stored weight by its normalised value (forced weight
    normalisation). For inference `fold` does both normalisations once, in float32; the stored weight is then the
    effective one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size))
        self.folded = False

    @property
    def fan_in(self) -> int:
        return self.weight[0].numel()

    def effective_weight(self) -> Tensor:
        if self.folded:
            return self.weight
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight, (1, 2)))
        return normalize(self.weight, (1, 2)) / self.fan_in**0.5

    @torch.no_grad()
    def fold(self):
        if not self.folded:
            self.weight.copy_(normalize(self.weight.float(), (1, 2)) / self.fan_in**0.5)
            self.folded = True

    def forward(self, x: Tensor, gain: Tensor | float | None = None) -> Tensor:
        weight = self.effective_weight() if gain is None else self.effective_weight() * gain
        return F.conv1d(x, weight.to(x.dtype), padding=self.weight.shape[-1] // 2)


class ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = MPConv1d(in_channels, out_channels, 3)
        self.conv2 = MPConv1d(out_channels, out_channels, 3)
        if in_channels != out_channels:
            self.nin_shortcut = MPConv1d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = normalize(x, (1,))  # the normalised x is also the residual
        h = self.conv2(mp_silu(self.conv1(mp_silu(x))))
        if hasattr(self, "nin_shortcut"):
            x = self.nin_shortcut(x)
        return mp_sum(x, h)


class AttentionBlock(nn.Module):
    """Single-head cosine attention over time."""

    def __init__(self, channels: int):
        super().__init__()
        self.qkv = MPConv1d(channels, 3 * channels, 1)
        self.proj_out = MPConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(x), "b (c j) t -> j b 1 t c", j=3)  # channel-interleaved, as in the flow network
        q, k, v = (normalize(part, (-1,)) for part in qkv)
        h = F.scaled_dot_product_attention(q, k, v)
        return mp_sum(x, self.proj_out(rearrange(h, "b 1 t c -> b c t")))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = MPConv1d(channels, channels, 1)
        self.conv2 = MPConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.avg_pool1d(self.conv1(x), 2))  # an odd last frame is dropped


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = MPConv1d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, dim=-1))


class Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x))).clamp(-CLAMP, CLAMP)


class Level(nn.Module):
    """Residual blocks at one width, then perhaps a change of rate."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int):
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(num_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x).clamp(-CLAMP, CLAMP)
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        if hasattr(self, "upsample"):
            x = self.upsample(x)
        return x


class Encoder(nn.Module):
    def __init__(self, c: VAEConfig):
        super().__init__()
        widths = [c.width * m for m in c.multipliers]
        self.conv_in = MPConv1d(c.mel_dim, c.width, 3)
        self.down = nn.ModuleList(
            Level(before, after, c.encoder_blocks) for before, after in zip([c.width, *widths], widths, strict=False)
        )
        self.down[c.resample_level].downsample = Downsample(widths[c.resample_level])
        self.mid = Middle(widths[-1])
        self.conv_out = MPConv1d(widths[-1], 2 * c.latent_dim, 3)
        self.learnable_gain = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(mp_silu(self.mid(x)), gain=self.learnable_gain + 1)


class Decoder(nn.Module):
    def __init__(self, c: VAEConfig):
        super().__init__()
        widths = [c.width * m for m in c.multipliers]
        self.conv_in = MPConv1d(c.latent_dim, widths[-1], 3)
        self.mid = Middle(widths[-1])
        # `up` is indexed by level, as in the files, and run from the last to the first
        self.up = nn.ModuleList(
            Level(before, after, c.decoder_blocks)
            for before, after in zip([*widths[1:], widths[-1]], widths, strict=True)
        )
        self.up[c.resample_level + 1].upsample = Upsample(widths[c.resample_level + 1])
        self.conv_out = MPConv1d(widths[0], c.mel_dim, 3)
        self.learnable_gain = nn.Parameter(torch.zeros([]))

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(mp_silu(x), gain=self.learnable_gain + 1)


@dataclass(frozen=True)
class Gaussian:
    """Diagonal posterior over latents; mean and std of shape (B, C, L)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> "Gaussian":
        mean, logvar = parameters.chunk(2, dim=1)
        return cls(mean, (0.5 * logvar.clamp(-30.0, 20.0)).exp())

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def kl(self) -> Tensor:
        """KL divergence to the unit normal, (B,), nats summed over channels and frames."""
        var = self.std.square()
        return 0.5 * (self.mean.square() + var - 1 - var.log()).flatten(1).sum(1)


class VAE(nn.Module):
    """Log-mel (B, M, F) <-> latents (B, C, F / 2)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.register_buffer("data_mean", torch.zeros(1, config.mel_dim, 1))
        self.register_buffer("data_std", torch.ones(1, config.mel_dim, 1))
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def standardize(self, mel: Tensor) -> Tensor:
        return (mel - self.data_mean) / self.data_std

    def encode(self, mel: Tensor) -> Gaussian:
        """Log-mel (B, M, F) to the posterior over (B, C, F // 2)."""
        return Gaussian.from_parameters(self.encoder(self.standardize(mel)))

    def decode(self, latent: Tensor) -> Tensor:
        """Unnormalised latents (B, C, L) to log-mel (B, M, 2 L)."""
        return self.decoder(latent) * self.data_std + self.data_mean

    def forward(self, mel: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training's one call: the way through a sample of the posterior, all float32.

        Log-mel (B, M, F) with F even and unit normal noise (B, C, F / 2) to: standardised log-mel (B, M, F), its
        reconstruction, posterior mean and std (B, C, F / 2).
        """
        x = self.standardize(mel)
        posterior = Gaussian.from_parameters(self.encoder(x).float())
        y = self.decoder(posterior.mean + posterior.std * noise).float()
        return x, y, posterior.mean, posterior.std

    def fold(self) -> "VAE":
        """Fold the weight normalisation for inference, in float32, before any cast. Returns self, in eval mode."""
        for module in self.modules():
            if isinstance(module, MPConv1d):
                module.fold()
        return self.eval()
