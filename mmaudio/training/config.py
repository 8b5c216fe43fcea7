"""Typed schema of configs/train.yaml. Every field is documented there."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataEntry:
    """One member of a mixture."""

    store: str | None = None  # a feature store (task=flow), or a folder in the reference's layout
    manifest: str | None = None  # a TSV of media files (the other tasks)
    weight: float = 1.0  # times an epoch sees it; a fraction is a random part, new in every epoch
    video: bool = True  # False: train it as if it had no video
    text: bool = True  # False: train it as if it had no captions


@dataclass
class DataConfig:
    root: str = "data"  # for the paths in configs/data
    train: list[DataEntry] = field(default_factory=list)
    validation: list[DataEntry] = field(default_factory=list)


@dataclass
class OptimizerConfig:
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-6
    clip_norm: float = 1.0
    warmup: int = 1000
    schedule: str = "step"  # step, cosine, constant
    milestones: list[int] = field(default_factory=lambda: [240_000, 270_000])  # counted from the end of the warm-up
    gamma: float = 0.1


@dataclass
class EMAConfig:
    sigma_rels: list[float] = field(default_factory=lambda: [0.05, 0.1])
    update_every: int = 1
    snapshot_every: int = 5000
    result: float = 0.05  # sigma_rel of the final weights
    correction: str = "exact"  # exact, or reference: that implementation's step counting


@dataclass
class LoRAConfig:
    rank: int = 0  # 0: full training
    alpha: float = 16.0
    targets: list[str] = field(default_factory=list)  # regular expressions over module names; empty: a good default


@dataclass
class PreviewConfig:
    videos: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)  # one for each video; without videos, words alone


@dataclass
class TrainConfig:
    exp_id: str = "default"
    output: str = "output"  # the run is kept in OUTPUT/EXP_ID
    variant: str | None = None
    weights: str | None = None  # start from these: a variant's name or a file
    weights_dir: str | None = None  # where to look for weight files first
    task: dict[str, Any] = field(default_factory=lambda: {"name": "flow"})
    data: DataConfig = field(default_factory=DataConfig)
    steps: int = 300_000
    batch_size: int = 512
    accumulation: int = 1
    seed: int = 14159265
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    precision: str = "auto"  # bf16, fp32; auto: bf16 on CUDA, fp32 elsewhere
    compile: bool = False
    strategy: str = "ddp"  # ddp, fsdp
    device: str | None = None
    num_workers: int = 4
    max_bad_steps: int = 20
    timeout: float = 1800.0
    log_every: int = 50
    validate_every: int = 5000
    preview_every: int = 20_000
    checkpoint_every: int = 10_000
    keep_checkpoints: int = 3
    preview: PreviewConfig = field(default_factory=PreviewConfig)
