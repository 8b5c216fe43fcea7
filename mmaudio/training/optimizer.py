"""AdamW and the learning rate, a pure function of the step."""

import math

import torch
from torch import nn

from mmaudio.training.config import OptimizerConfig

SCHEDULES = ("step", "cosine", "constant")


def learning_rate(step: int, config: OptimizerConfig, steps: int) -> float:
    """Learning rate of the 0-based step.

    Warm-up lr (k + 1) / (warmup + 1) for steps k < warmup; then constant, a cosine to zero at `steps`, or falls by
    `gamma` at each milestone. As in the reference, milestones count from the end of the warm-up.

    Raises:
        ValueError: unknown schedule.
    """
    if config.schedule not in SCHEDULES:
        raise ValueError(f"optimizer.schedule must be one of {', '.join(SCHEDULES)}, got {config.schedule!r}")
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    if config.schedule == "cosine":
        share = (step - config.warmup) / max(1, steps - config.warmup)
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(step - config.warmup >= m for m in config.milestones)
    return config.lr


def build_optimizer(module: nn.Module, config: OptimizerConfig, mixed_precision: bool) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; all of them decay, as in the reference."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=tuple(config.betas),
        eps=1e-6 if mixed_precision else 1e-8,
        weight_decay=config.weight_decay,
        fused=all(p.device.type in ("cuda", "cpu") for p in parameters),
    )
