"""Conditional flow matching: path, target, time sampling, guidance and solvers. No network in here.

A velocity is any callable `velocity(t, x) -> v` with t a float32 scalar tensor on the CPU and x of shape (B, L, C).
Time runs from 0 (noise) to 1 (data).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]  # (steps done, steps in all); raise from it to stop


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t x1 (paper, equation 1); t has shape (B,)."""
    t = t.view(-1, *[1] * (x0.ndim - 1))
    return (1 - t) * x0 + t * x1


def target_velocity(x0: Tensor, x1: Tensor) -> Tensor:
    """x1 - x0, the constant velocity of the straight path (paper, equation 1)."""
    return x1 - x0


def logit_normal(z: Tensor, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Standard normals to times in (0, 1)."""
    return torch.sigmoid(mean + scale * z)


def sample_times(batch: int, generator: torch.Generator | None = None, *, device=None) -> Tensor:
    """Training times, (batch,) float32, logit-normal with mean 0 and scale 1 (paper, section 4)."""
    return logit_normal(torch.randn(batch, generator=generator, device=device))


def loss(v: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Squared error per sample, (B,): the mean over frames and channels of (v - (x1 - x0))^2."""
    return (v.float() - target_velocity(x0, x1).float()).square().flatten(1).mean(1)


def initial_noise(seeds: list[int], shape: tuple[int, int], *, device, dtype: torch.dtype) -> Tensor:
    """One (L, C) normal draw per seed, stacked to (B, L, C).

    Each sample has its own generator, so its noise does not depend on the batch it is in. The draw happens in the
    model's dtype on the model's device, as the reference does: another dtype or device is another sample.
    """
    draws = [
        torch.randn(1, *shape, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(seed))
        for seed in seeds
    ]
    return torch.cat(draws)


def _times(t: Tensor, x: Tensor) -> Tensor:
    """A time, or one for each sample, as (B,) on x's device.

    A solver's one is on the CPU. It is not copied but written there: a copy would wait for what the device is doing.
    """
    if t.ndim == 0 and t.device.type == "cpu":
        return torch.full((len(x),), t.item(), dtype=t.dtype, device=x.device)
    return t.to(x.device).expand(len(x))


def guided(net, conditions, null, cfg_strength: float, *, two_passes: bool = False) -> Velocity:
    """Classifier-free guidance: s v(conditions) + (1 - s) v(null); below 1 only the conditional prediction.

    Args:
        net: has `velocity(latent, t, conditions)` with t of shape (B,), or the latents once for both branches and t
            and conditions of twice as many.
        conditions, null: of the same batch size; `conditions.concat(null)` joins them.
        two_passes: evaluate the branches one after the other, at half the activation memory, instead of as one batch.
    """
    if cfg_strength < 1:
        return lambda t, x: net.velocity(x, _times(t, x), conditions)

    if two_passes:

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            times = _times(t, x)
            v, v_null = net.velocity(x, times, conditions), net.velocity(x, times, null)
            return cfg_strength * v + (1 - cfg_strength) * v_null

        return velocity

    both = conditions.concat(null)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        v, v_null = net.velocity(x, _times(t, x).repeat(2), both).chunk(2)
        return cfg_strength * v + (1 - cfg_strength) * v_null

    return velocity


def averaged(net, conditions, step: float) -> Velocity:
    """What a few-step network predicts, the average velocity from t to t + step. Only Euler can follow it."""

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        return net.velocity(x, _times(t, x), conditions, _times((t + step).clamp(max=1), x))

    return velocity


def sampled(net, conditions, null, cfg_strength: float, step: float, *, two_passes: bool = False) -> Velocity:
    """The velocity by which a network is sampled in steps of `step`: guided, unless it has its guidance in it."""
    if net.config.few_step:
        return averaged(net, conditions, step)
    strength = cfg_strength if net.config.guidance is None else 0.0
    return guided(net, conditions, null, strength, two_passes=two_passes)


def holding(velocity: Velocity, x0: Tensor, x1: Tensor, kept: Tensor) -> Velocity:
    """A velocity that carries the frames `kept`, (L,) bool, along the straight path from x0 to x1, whatever they are.

    The other frames are predicted from them: at every evaluation the kept ones are put to (1 - t) x0 + t x1, which is
    their data noised to that time, and their velocity is x1 - x0.
    """
    kept = kept[:, None]  # (L, 1)

    def held(t: Tensor, x: Tensor) -> Tensor:
        on_path = interpolate(x0, x1, _times(t, x0).to(x0.dtype))
        return torch.where(kept, target_velocity(x0, x1), velocity(t, torch.where(kept, on_path, x)))

    return held


def starting_at(velocity: Velocity, start: float) -> Velocity:
    """The velocity on times from `start` to 1, stretched to 0 to 1: every solver then begins at `start`."""
    return lambda t, x: (1 - start) * velocity(start + (1 - start) * t, x)


def _steps(num_steps: int, reverse: bool):
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    times = torch.linspace(1, 0, num_steps + 1) if reverse else torch.linspace(0, 1, num_steps + 1)
    yield from zip(range(1, num_steps + 1), times[:-1], times[1:], strict=True)


def _fixed_step(rule):
    """A solver from a rule(velocity, x, t, dt) -> x that makes one step."""

    def solve(
        velocity: Velocity, x0: Tensor, num_steps: int = 25, *, reverse: bool = False, progress: Progress | None = None
    ) -> Tensor:
        x = x0
        for step, t, t_next in _steps(num_steps, reverse):
            x = rule(velocity, x, t, t_next - t)
            if progress is not None:
                progress(step, num_steps)
        return x

    solve.__doc__ = rule.__doc__ + " `reverse` integrates from 1 to 0 (data to noise)."
    return solve


@_fixed_step
def euler(velocity, x, t, dt):
    """First order: one evaluation per step."""
    return x + dt * velocity(t, x)


def trajectory(velocity: Velocity, x0: Tensor, num_steps: int) -> Tensor:
    """All states that Euler's steps pass, (num_steps + 1, B, L, C); the first is x0."""
    states = []

    def passed(t: Tensor, x: Tensor) -> Tensor:
        states.append(x)
        return velocity(t, x)

    end = euler(passed, x0, num_steps)
    return torch.stack([*states, end])


@_fixed_step
def midpoint(velocity, x, t, dt):
    """Second order: two evaluations per step."""
    return x + dt * velocity(t + dt / 2, x + dt / 2 * velocity(t, x))


@_fixed_step
def heun(velocity, x, t, dt):
    """Second order (explicit trapezoid): two evaluations per step."""
    v = velocity(t, x)
    return x + dt / 2 * (v + velocity(t + dt, x + dt * v))


def dopri5(
    velocity: Velocity, x0: Tensor, num_steps: int = 25, *, reverse: bool = False, progress: Progress | None = None,
    rtol: float = 1e-5, atol: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Adaptive fifth order; the tolerances decide the number of evaluations, `num_steps` is not used.

    The step size follows the error of the whole batch, so here a sample does depend, within the tolerances, on the
    batch it is in.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ValueError("solver dopri5 needs torchdiffeq: pip install 'mmaudio[ode]'") from error
    ends = torch.tensor([1.0, 0.0] if reverse else [0.0, 1.0], device=x0.device)
    x = odeint(
        lambda t, x: velocity(t, x.to(x0.dtype)).float(), x0.float(), ends, rtol=rtol, atol=atol, method="dopri5"
    )
    if progress is not None:
        progress(1, 1)
    return x[-1].to(x0.dtype)


SOLVERS = {"euler": euler, "midpoint": midpoint, "heun": heun, "dopri5": dopri5}
