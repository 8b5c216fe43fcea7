"""The audio codec as one thing: waveform <-> log-mel <-> latents."""

import torch
from torch import Tensor, nn

from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vae import VAE, Gaussian


class AudioCodec(nn.Module):
    """Mel front end, VAE and vocoder of one variant. Latents here are channel-last, (B, L, C), as in the network."""

    def __init__(self, mel: MelSpectrogram, vae: VAE, vocoder: nn.Module):
        super().__init__()
        self.mel = mel
        self.vae = vae
        self.vocoder = vocoder

    @property
    def sample_rate(self) -> int:
        return self.mel.config.sample_rate

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Gaussian:
        """Waveform (B, N) in [-1, 1] to the posterior over latents; its mean and std are (B, L, C)."""
        posterior = self.vae.encode(self.mel(waveform).to(self.vae.data_mean.dtype))
        return Gaussian(posterior.mean.transpose(1, 2), posterior.std.transpose(1, 2))

    @torch.inference_mode()
    def decode_mel(self, latents: Tensor) -> Tensor:
        """Unnormalised latents (B, L, C) to log-mel (B, M, 2 L)."""
        return self.vae.decode(latents.transpose(1, 2))

    @torch.inference_mode()
    def vocode(self, mel: Tensor) -> Tensor:
        """Log-mel (B, M, F) to waveform (B, 1, F * hop_length) in [-1, 1], float32."""
        return self.vocoder(mel).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Unnormalised latents (B, L, C) to waveform (B, 1, 2 L * hop_length)."""
        return self.vocode(self.decode_mel(latents))
