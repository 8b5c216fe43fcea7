"""Precision and kernels of a training run."""

import contextlib

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Raises ValueError for an unknown precision."""
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision must be auto, bf16 or fp32, got {precision!r}")
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def autocast(precision: str, device: torch.device):
    """bfloat16 needs no gradient scaler."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def attention_kernel(device: torch.device):
    """On a CPU the fused attention's backward pass is several times slower than plain matrix products at our sizes."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def set_up_numerics(device: torch.device) -> None:
    """TF32 matrix products on CUDA, as the reference trains."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
