"""Path and solvers, by calculus: no network."""

from types import SimpleNamespace

import pytest
import torch

from mmaudio import flow


@pytest.mark.parametrize("name", flow.SOLVERS)
def test_solvers_integrate_a_known_velocity(name):
    x0 = torch.ones(2, 3, 4)
    tolerance = {"euler": 0.04, "midpoint": 1e-3, "heun": 1e-3, "dopri5": 1e-4}[name]
    x1 = flow.SOLVERS[name](lambda t, x: (3 * t**2).expand_as(x), x0, 50)
    assert torch.allclose(x1, torch.full_like(x0, 2.0), atol=tolerance)
    grown = flow.SOLVERS[name](lambda t, x: x, x0, 50)
    assert torch.allclose(grown, torch.full_like(x0, torch.e), atol=tolerance)


def test_higher_order_is_closer_at_the_same_number_of_evaluations():
    x0, e = torch.ones(1), torch.e
    errors = {name: abs(flow.SOLVERS[name](lambda t, x: x, x0, n).item() - e)
              for name, n in (("euler", 20), ("midpoint", 10), ("heun", 10))}  # fmt: skip
    assert errors["midpoint"] < errors["euler"] / 10
    assert errors["heun"] < errors["euler"] / 10


def test_reverse_undoes_forward():
    x0 = torch.randn(1, 5, 2)
    there = flow.heun(lambda t, x: torch.sin(x) + t, x0, 50)
    back = flow.heun(lambda t, x: torch.sin(x) + t, there, 50, reverse=True)
    assert torch.allclose(back, x0, atol=1e-3)


def test_the_true_velocity_carries_noise_to_data():
    x0, x1 = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    assert torch.allclose(flow.euler(lambda t, x: flow.target_velocity(x0, x1), x0, 7), x1, atol=1e-5)
    half = flow.interpolate(x0, x1, torch.tensor([0.0, 1.0]))
    assert torch.equal(half[0], x0[0])
    assert torch.equal(half[1], x1[1])
    assert torch.equal(flow.loss(x1 - x0, x0, x1), torch.zeros(2))


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    alone = flow.initial_noise([7], (10, 4), device="cpu", dtype=torch.float32)
    batch = flow.initial_noise([5, 6, 7], (10, 4), device="cpu", dtype=torch.float32)
    assert torch.equal(alone[0], batch[2])
    assert not torch.equal(batch[0], batch[1])


def test_progress_counts_steps_and_can_cancel():
    seen = []
    flow.euler(lambda t, x: x, torch.ones(1), 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow.euler(lambda t, x: x, torch.ones(1), 3, progress=cancel)


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun"])
def test_steps_must_be_positive(name):
    with pytest.raises(ValueError, match="at least 1"):
        flow.SOLVERS[name](lambda t, x: x, torch.ones(1), 0)


class AverageOf:
    """A few-step network for the velocity 3 t^2, whose averages are known."""

    config = SimpleNamespace(few_step=True, guidance=4.5)

    def velocity(self, latent, t, conditions, until):
        return ((until**3 - t**3) / (until - t)).view(-1, 1, 1).expand_as(latent)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_averages_are_exact_at_any_number_of_steps(steps):
    x0 = torch.ones(2, 3, 4)
    velocity = flow.sampled(AverageOf(), None, None, 7.0, 1 / steps)
    assert torch.allclose(flow.euler(velocity, x0, steps), torch.full_like(x0, 2.0), atol=1e-5)
    begun = flow.starting_at(flow.sampled(AverageOf(), None, None, 7.0, 0.4 / steps), 0.6)
    assert torch.allclose(flow.euler(begun, x0, steps), x0 + 1 - 0.6**3, atol=1e-5)


def test_a_trajectory_is_euler_s_way():
    x0 = torch.randn(2, 3, 4)
    states = flow.trajectory(lambda t, x: torch.sin(x) + t, x0, 6)
    assert states.shape == (7, 2, 3, 4)
    assert torch.equal(states[0], x0)
    assert torch.allclose(states[-1], flow.euler(lambda t, x: torch.sin(x) + t, x0, 6))
