"""Convolutions over time by fewer multiplications than their definition has; the same results to rounding.

m outputs of a filter of r taps take m + r - 1 products instead of m r (Toom and Cook; for networks Winograd, 1980, and
Lavin and Gray, arXiv 1509.09308): inputs and weights are seen as polynomials and multiplied at a few points. The
products are matrix products over channels, so it pays where there are many, in float32 on a CPU, where the arithmetic
is what takes the time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OUTPUTS = 4  # of one tile; more would save little and cost digits
MIN_CHANNELS = 128  # with fewer the transforms cost more than they save
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)  # and infinity


def toom_cook(outputs: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices A (outputs, n), G (n, taps), B (n, n), n = outputs + taps - 1, float64.

    For n inputs x and a filter w, A ((G w) * (B x)) are the sums over i of w[i] x[j + i] for j < outputs.
    """
    n = outputs + taps - 1
    points = torch.tensor(POINTS[: n - 1], dtype=torch.float64)

    def values(count: int) -> Tensor:
        """Of a polynomial with `count` coefficients at the points; at infinity it is the last coefficient."""
        return torch.cat([points[:, None] ** torch.arange(count), torch.eye(count, dtype=torch.float64)[-1:]])

    # The transposed algorithm of multiplying polynomials: evaluate two, multiply, interpolate.
    return values(outputs).T, values(taps), torch.linalg.inv(values(n)).T


class FastConv1d(nn.Module):
    """A convolution (B, N, C) to (B, N, O) of odd width, with zeros around the input, for inference.

    A kernel of over 4 taps is cut into groups of 4, one tile apart, whose products are added before they are
    transformed back. With a dilation d every d-th frame is convolved by itself.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, dilation: int = 1):
        """weight (O, C, K), bias (O,): copied."""
        super().__init__()
        self.kernel_size, self.dilation = weight.shape[-1], dilation
        taps = min(self.kernel_size, OUTPUTS)
        self.groups = -(-self.kernel_size // taps)
        to_outputs, to_weights, to_inputs = (x.float() for x in toom_cook(OUTPUTS, taps))
        weight = F.pad(weight.detach(), (0, self.groups * taps - self.kernel_size)).unflatten(2, (self.groups, taps))
        weight = weight.permute(2, 3, 1, 0)  # (groups, taps, C, O)
        products = (to_weights @ weight.flatten(2)).unflatten(2, weight.shape[2:])
        self.register_buffer("weight", products, persistent=False)  # (groups, n, C, O)
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), persistent=False)
        self.register_buffer("to_outputs", to_outputs.contiguous(), persistent=False)
        self.register_buffer("to_inputs", to_inputs.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        d, n, O = self.dilation, len(self.to_inputs), self.weight.shape[-1]  # noqa: E741
        tiles = -(-N // (OUTPUTS * d))
        seen = tiles + self.groups - 1
        before = d * (self.kernel_size // 2)
        padded = x.new_zeros(B, (OUTPUTS * (seen - 1) + n) * d, C)
        padded[:, before : before + N] = x
        # Frame (OUTPUTS q + i) d + r is number i of tile q of phase r; tiles overlap.
        shape, strides = (n, seen, B, d * C), (d * C, OUTPUTS * d * C, padded.stride(0), 1)
        inputs = (self.to_inputs @ padded.as_strided(shape, strides).reshape(n, -1)).view(n, seen, -1, C)
        products = torch.bmm(inputs[:, :tiles].flatten(1, 2), self.weight[0])  # (n, tiles B d, O)
        for g in range(1, self.groups):
            products.baddbmm_(inputs[:, g : g + tiles].flatten(1, 2), self.weight[g])
        y = (self.to_outputs @ products.view(n, -1)).view(OUTPUTS, tiles, B, d, O)
        y = y.permute(2, 1, 0, 3, 4).reshape(B, -1, O)[:, :N]  # (B, N, O)
        return y if self.bias is None else y + self.bias


class FastConv1dChannelsFirst(FastConv1d):
    """The same on (B, C, N) to (B, O, N); the result is a view of what lies channel-last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def suits(conv: nn.Module) -> bool:
    """Whether a convolution can be a `FastConv1d` and gains by it."""
    return (
        isinstance(conv, nn.Conv1d)
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and conv.kernel_size[0] % 2 == 1
        and conv.kernel_size[0] > 1
        and conv.stride == (1,)
        and conv.groups == 1
        and conv.padding == (conv.dilation[0] * (conv.kernel_size[0] // 2),)
    )
