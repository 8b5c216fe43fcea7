"""The comparison of ways to sample: its counts, its times, and that plain ways are the pipeline's own."""

import pytest
import torch
from scripts_loading import load_script

import mmaudio
from mmaudio import flow


@pytest.fixture(scope="module")
def script():
    load_script("evaluate_stage")  # which it imports
    return load_script("compare_sampling")


def test_passes_and_times(script):
    way = script.Way
    assert [w.passes for w in (way("euler", 4), way("midpoint", 2), way("heun", 2))] == [8, 8, 8]
    assert way("euler", 5, until=0.6).passes == 3 * 2 + 2
    assert way("euler", 2, warp=2).times.tolist() == pytest.approx([0, 1 / 3, 1])
    assert way("euler", 2, warp=0.5).times.tolist() == pytest.approx([0, 2 / 3, 1])
    names = [w.name for w in script.WAYS]
    assert len(set(names)) == len(names)


def test_plain_ways_are_the_library_s(script):
    pipe = mmaudio.load("tiny_16k", device="cpu")
    inputs = pipe.read(duration=1.0)
    with torch.inference_mode():
        conditional, null = pipe.conditions(pipe.encode(inputs, "a bell rings"), inputs.spec)
        network = pipe.part("network")
        noise = flow.initial_noise([3], (inputs.spec.latent_len, 20), device="cpu", dtype=torch.float32)

        def by(way):
            return script.integrate(way, script.guided(way, network, conditional, null), noise)

        for solver in ("euler", "midpoint", "heun"):
            expected = flow.SOLVERS[solver](flow.guided(network, conditional, null, 4.5), noise, 2)
            torch.testing.assert_close(by(script.Way(solver, 2)), expected)
        changed = [by(script.Way("euler", 2, **{name: 0.4})) for name in ("warp", "until", "rescale", "strength")]
        plain = by(script.Way("euler", 2))
        assert all((other - plain).abs().max() > 0.01 for other in changed)
        alone = flow.guided(network, conditional, null, 0.0)
        torch.testing.assert_close(by(script.Way("euler", 2, until=0.0)), flow.euler(alone, noise, 2))


def test_mistakes(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--only", "rk45"])
    assert "fits no way; they are euler, 4 steps;" in capsys.readouterr().err
    assert script.main(["--variant", "no_such", "--count", "2"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
