"""Precision of a training run."""

import torch


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Raises ValueError for an unknown precision."""
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision must be auto, bf16 or fp32, got {precision!r}")
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def autocast(precision: str, device: torch.device):
    """bfloat16 needs no gradient scaler."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def set_up_numerics(device: torch.device) -> None:
    """TF32 matrix products on CUDA, as the reference trains."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
