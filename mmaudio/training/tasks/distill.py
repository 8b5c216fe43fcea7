"""Distillation of a flow network: guidance without its second pass, then few steps.

Stage `guidance` (after Meng et al., arXiv 2210.03142): the student's velocity is the teacher's guided one.

Stage `few_step`: the student's velocity is the average of the teacher's (guided) velocity over a step of any length, so
that Euler's steps can be long: the quantity of MeanFlow (Geng et al., arXiv 2505.13447). MeanFlow learns it from data
alone, by an identity that needs the network's derivative along the flow and the network's own estimate of it, which a
long training makes right. Here is a teacher, so the averages are known: the teacher walks from noise to sound, and
between any two states of its way the average velocity is their difference by their distance in time. Nothing is
estimated, no derivative is taken, and the states are those that sampling passes. docs/few_steps.md has the costs.
"""

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmaudio import flow
from mmaudio.data.mixture import FeatureBatch
from mmaudio.loading import load_network
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.training.config import TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task
from mmaudio.training.tasks.flow import FlowLoss, binned, codec_identity, flow_metadata, mixtures, preview
from mmaudio.training.tasks.setup import task_options
from mmaudio.variants import Variant, get_variant

STAGES = ("guidance", "few_step")
STRENGTH = 4.5  # of guidance: the pipeline's default
HUBER = 0.01  # root mean square error below which the loss is quadratic


@dataclass
class Options:
    stage: str = "few_step"  # guidance, few_step
    guidance: float | None = None  # strength that the student takes over; None: the teacher's own, or 4.5
    steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8])  # few_step: numbers of steps that are taught
    teacher_steps: int = 16  # few_step: of the teacher's way from noise to sound; a multiple of each of `steps`
    drop: float = 0.1  # probability that a sample is without its video, and without its text
    seconds: float | None = None  # learn on pieces of this length, cut anew at every step; None: whole clips


def build(config: TrainConfig, device: torch.device) -> Task:
    """The task from its configuration.

    Raises:
        ValueError, StoreError, WeightError: something does not fit; one line.
    """
    options = task_options(Options, config)
    check(options)
    if config.weights is None:
        raise ValueError("task distill needs weights=NAME or FILE: the flow network to distil")
    start = get_variant(config.weights)
    if config.variant is not None and get_variant(config.variant).base != start.base:
        raise ValueError(f"weights {config.weights} were made for {start.base}, not for variant {config.variant}")
    few_step = options.stage == "few_step"
    variant = dataclasses.replace(start, network=student_config(start, options))
    identity = codec_identity(variant, start, config.weights_dir)
    train, validation = mixtures(config, variant, identity)

    teacher = Teacher(load_network(start, config.weights_dir).to(device), variant.network.guidance)
    common = teacher, variant, options.drop, variant.network.v2, device
    if few_step:
        loss = FewStepLoss(*common, options.steps, options.teacher_steps, options.seconds)
    else:
        loss = GuidanceLoss(*common, options.seconds)
    previews = config.preview.videos or config.preview.prompts
    return Task(
        name="distill",
        network=student(teacher.network, variant.network).to(device),
        loss=loss,
        train=train,
        validation=validation,
        # Not the variant's own file name: as that, it would be sampled with guidance once more.
        file_name=f"{variant.base}_{'few_step' if few_step else 'guided'}.safetensors",
        metadata=flow_metadata(variant, train),
        blocks=lambda net: (*net.joint_blocks, *net.fused_blocks),
        preview=preview(config, variant, device, max(options.steps) if few_step else 25) if previews else None,
    )


def check(options: Options) -> None:
    """Raises ValueError for a setting that makes no sense."""
    if options.stage not in STAGES:
        raise ValueError(f"task.stage must be one of {', '.join(STAGES)}, got {options.stage!r}")
    if options.guidance is not None and not 1 <= options.guidance < float("inf"):
        raise ValueError(f"task.guidance must be at least 1, which is none, got {options.guidance:g}")
    total = options.teacher_steps
    if not options.steps or any(not 1 <= n <= total or total % n for n in options.steps):
        raise ValueError(f"task.steps must be divisors of task.teacher_steps={total}, got {options.steps}")


def student_config(start: Variant, options: Options) -> MMAudioConfig:
    """The student's configuration. Raises ValueError if the network to start from is no teacher for it."""
    own = start.network.guidance
    if start.network.few_step:
        raise ValueError(f"weights of {start.name} are for few steps already: distil the network they were made from")
    if own is not None and options.stage == "guidance":
        raise ValueError(f"weights of {start.name} have their guidance in them already: go on with task.stage=few_step")
    if own is not None and options.guidance not in (None, own):
        raise ValueError(f"task.guidance is {options.guidance:g}, weights of {start.name} have {own:g} in them")
    strength = own or options.guidance or STRENGTH
    return dataclasses.replace(start.network, guidance=strength, few_step=options.stage == "few_step")


def student(teacher: MMAudio, config: MMAudioConfig) -> MMAudio:
    """The teacher's copy; over any interval it predicts what the teacher does at its beginning, without guidance."""
    network = MMAudio(config)
    own = {name: x for name, x in network.state_dict().items() if name.startswith("interval_proj.")}  # zero
    network.load_state_dict(teacher.state_dict() | own)
    return network


class Teacher:
    """The network to be distilled, frozen, and guided by `strength` unless it has its guidance in it."""

    def __init__(self, network: MMAudio, strength: float):
        self.network = network
        self.strength = strength if network.config.guidance is None and strength > 1 else 0.0

    def velocity(self, features: dict) -> flow.Velocity:
        """Of a batch, from what `FlowLoss.features` gives; times can be scalars or (B,)."""
        conditions = self.network.encode_rows(**features)
        null = self.network.null_conditions(conditions.batch, features["spec"]) if self.strength else None
        return flow.guided(self.network, conditions, null, self.strength)


class GuidanceLoss(FlowLoss):
    """The student's velocity against the teacher's guided one, at noised data.

    Times are uniform: there is no noise in these targets, so no time is harder than another, and the first steps of
    sampling count.
    """

    def __init__(
        self, teacher: Teacher, variant: Variant, drop: float, independent: bool, device: torch.device | str,
        seconds: float | None = None,
    ):  # fmt: skip
        super().__init__(teacher.network, variant, drop, independent, device, seconds)
        self.teacher = teacher

    def __call__(self, nets: Nets, batch: FeatureBatch, draw: Draw) -> Losses:
        batch = self.pieces(batch, draw)
        x1 = self.latents(batch, draw)
        t = draw.uniform()
        xt = flow.interpolate(draw.normal(*x1.shape[1:]), x1, t)
        features = self.features(batch, draw)
        with torch.no_grad():
            target = self.teacher.velocity(features)(t, xt)
        error = squared_error(nets.network(xt, t, **features), target)
        return Losses(pseudo_huber(error).mean(), {"error": error.detach().mean()}, binned(error.detach(), t))


class FewStepLoss(FlowLoss):
    """The student's velocity against the average of the teacher's, over one step of every number in `steps`."""

    def __init__(
        self, teacher: Teacher, variant: Variant, drop: float, independent: bool, device: torch.device | str,
        steps: list[int], teacher_steps: int, seconds: float | None = None,
    ):  # fmt: skip
        super().__init__(teacher.network, variant, drop, independent, device, seconds)
        self.teacher, self.steps, self.teacher_steps = teacher, steps, teacher_steps

    def __call__(self, nets: Nets, batch: FeatureBatch, draw: Draw) -> Losses:
        batch = self.pieces(batch, draw)
        x0 = draw.normal(*batch.mean.shape[1:])
        features = self.features(batch, draw)
        begin, end = self.intervals(draw)  # (n, B), n numbers of steps
        with torch.no_grad():
            states = flow.trajectory(self.teacher.velocity(features), x0, self.teacher_steps)  # (N + 1, B, L, C)
        rows = torch.arange(len(x0), device=x0.device)
        x, t, until = states[begin, rows], begin / self.teacher_steps, end / self.teacher_steps
        average = (states[end, rows] - x) / (until - t)[..., None, None]  # (n, B, L, C)
        u = nets.network(
            x.flatten(0, 1), t.flatten(), **repeated(features, len(self.steps)), until=until.flatten()
        )  # (n B, L, C): one call, for the sake of ranks that share gradients
        error = squared_error(u, average.flatten(0, 1)).view(len(self.steps), -1)  # (n, B)
        parts = {f"error_{n}": value for n, value in zip(self.steps, error.detach().mean(1), strict=True)}
        return Losses(pseudo_huber(error).mean(), parts)

    def intervals(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """For every number of steps one of these, as the teacher's steps at which it begins and ends, (n, B) int64."""
        counts = torch.tensor(self.steps, device=draw.device)[:, None]
        length = self.teacher_steps // counts
        begin = length * (draw.uniform(len(self.steps)).T * counts).long()
        return begin, begin + length


def squared_error(v: Tensor, target: Tensor) -> Tensor:
    """Mean over frames and channels, (B,)."""
    return (v.float() - target.float()).square().flatten(1).mean(1)


def pseudo_huber(error: Tensor) -> Tensor:
    """Of mean squares nearly the roots: steps or clips with large errors do not drown the others."""
    return (error + HUBER**2).sqrt() - HUBER


def repeated(features: dict, times: int) -> dict:
    """Every tensor `times` times along the batch."""
    return {name: x.repeat(times, *[1] * (x.ndim - 1)) if isinstance(x, Tensor) else x for name, x in features.items()}
