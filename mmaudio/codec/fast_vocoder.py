"""BigVGAN as a CPU likes it: channels lie side by side in memory, and every filter is one depthwise convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.codec.vocoder import quiet_bigvgan
from mmaudio.fast_conv import FastConv1dChannelsFirst, suits

BLOCK = 2**18  # values that are worked on at a time, so that they stay in the processor's caches
REACH = 6  # frames before and after one that decide it


class AntiAliasedSnake(nn.Module):
    """The package's activation: up to twice the rate, x + sin^2(alpha x) / beta, and down again; (B, C, T) to the same.

    The frames at twice the rate are never interleaved: the even and the odd ones are made by a depthwise convolution
    each, and two more bring them back. It goes through memory block by block.
    """

    def __init__(self, activation: nn.Module):
        super().__init__()
        up, down = activation.upsample.filter.flatten(), activation.downsample.lowpass.filter.flatten()
        assert activation.up_ratio == activation.down_ratio == 2
        assert len(up) == len(down) == 12
        snake = activation.act
        logarithmic = snake.alpha_logscale
        alpha, beta = (x.detach().exp() if logarithmic else x.detach().clone() for x in (snake.alpha, snake.beta))

        def depthwise(taps: Tensor) -> Tensor:  # (C, 1, 1, 6)
            return taps.expand(len(alpha), 1, 1, -1).to(memory_format=torch.channels_last, copy=True)

        self.register_buffer("up_even", depthwise(2 * up.flip(0)[0::2]), persistent=False)
        self.register_buffer("up_odd", depthwise(2 * up.flip(0)[1::2]), persistent=False)
        self.register_buffer("down_even", depthwise(down[1::2]), persistent=False)
        self.register_buffer("down_odd", depthwise(down[0::2]), persistent=False)
        self.register_buffer("alpha", alpha, persistent=False)
        self.register_buffer("gain", 1 / (beta + snake.no_div_by_zero), persistent=False)

    def snake(self, x: Tensor) -> Tensor:
        """In place, (B, T, C)."""
        return x.addcmul_((x * self.alpha).sin_().square_(), self.gain)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # (B, T, C)
        length, step = x.shape[1], max(REACH, BLOCK // x.shape[2])
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        for start in range(0, length, step):
            end, before = min(start + step, length), min(start, REACH)
            block = self.block(x[:, start - before : end + REACH])
            y[:, start:end] = block[:, before : before + end - start]
        return y.transpose(1, 2)

    def block(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same; beyond its ends the frames are held."""
        x = _held(x, x[:, :1], x[:, -1:], 3, 3)
        even, odd = self.snake(_filtered(x[:, :-1], self.up_even)), self.snake(_filtered(x[:, 1:], self.up_odd))
        first, last = even[:, :1], odd[:, -1:]
        even = _filtered(_held(even, first, last, 2, 3), self.down_even)
        return even.add_(_filtered(_held(odd, first, last, 3, 2), self.down_odd))


def _held(x: Tensor, first: Tensor, last: Tensor, before: int, after: int) -> Tensor:
    return torch.cat([first.expand(-1, before, -1), x, last.expand(-1, after, -1)], dim=1)


def _filtered(x: Tensor, taps: Tensor) -> Tensor:
    """(B, T, C) to (B, T - 5, C)."""
    return F.conv2d(x.transpose(1, 2).unsqueeze(2), taps, groups=len(taps)).squeeze(2).transpose(1, 2)


class ChannelsLastConv(nn.Module):
    """A convolution (B, C, T) to (B, O, T) whose input and output lie channel-last in memory."""

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        weight = conv.weight.detach().unsqueeze(2).to(memory_format=torch.channels_last, copy=True)
        self.register_buffer("weight", weight, persistent=False)  # (O, C, 1, K)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone(), persistent=False)
        self.padding, self.dilation = (0, conv.padding[0]), (1, conv.dilation[0])

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(2)
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation).squeeze(2)


class Upsampling(nn.Module):
    """A transposed convolution (B, C, T) to (B, O, T') as products of matrices, each of one stride's taps."""

    def __init__(self, conv: nn.ConvTranspose1d):
        super().__init__()
        (self.stride,), (padding,), (kernel,) = conv.stride, conv.padding, conv.kernel_size
        self.begin, self.added = padding, kernel - self.stride - padding  # of the whole, in frames
        weight = F.pad(conv.weight.detach(), (0, -kernel % self.stride)).transpose(1, 2)  # (C, K, O)
        weight = weight.unflatten(1, (-1, self.stride)).transpose(0, 1).flatten(2)  # (strides, C, stride O)
        bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.register_buffer("weight", weight.contiguous(), persistent=False)
        self.register_buffer("bias", bias.repeat(self.stride), persistent=False)  # (stride O)

    def forward(self, x: Tensor) -> Tensor:
        x, length = x.transpose(1, 2), x.shape[2]  # (B, T, C)
        y = self.bias.repeat(len(x), length + len(self.weight) - 1, 1)  # (B, T + strides - 1, stride O)
        for i, taps in enumerate(self.weight):
            y[:, i : i + length].baddbmm_(x, taps.expand(len(x), -1, -1))
        y = y.unflatten(2, (self.stride, -1)).flatten(1, 2)  # (B, frames, O)
        return y[:, self.begin : length * self.stride + self.added].transpose(1, 2)


def fast_bigvgan(generator: nn.Module) -> nn.Module:
    """The generator with its layers swapped, in place: for inference in float32 on a CPU.

    Weight norm must be folded.
    """
    with quiet_bigvgan():
        from bigvgan.bigvgan import TorchActivation1d

    for name, layer in list(generator.named_modules()):
        if isinstance(layer, TorchActivation1d):
            generator.set_submodule(name, AntiAliasedSnake(layer))
        elif suits(layer):
            generator.set_submodule(name, FastConv1dChannelsFirst(layer.weight, layer.bias, layer.dilation[0]))
        elif isinstance(layer, nn.Conv1d):
            generator.set_submodule(name, ChannelsLastConv(layer))
        elif isinstance(layer, nn.ConvTranspose1d):
            generator.set_submodule(name, Upsampling(layer))
    return generator
