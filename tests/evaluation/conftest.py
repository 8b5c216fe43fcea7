import json
from pathlib import Path

import fill  # tests/data/reference, on the path by tests/conftest.py
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "data" / "evaluation" / "golden.json"


def impacts(samples, rate, seed, events, floor, **_):
    """A decaying, slightly noisy tone per event (time, gain, hertz, decay in seconds) over a noise floor."""
    t = np.arange(samples) / rate
    wave = floor * fill.tensor("floor", (samples,), seed).double().numpy()
    for i, (time, gain, hertz, decay) in enumerate(events):
        since, noise = t - time, fill.tensor(f"impact.{i}", (samples,), seed).double().numpy()
        ring = gain * np.exp(-since.clip(min=0) / decay) * (0.7 * np.sin(2 * np.pi * hertz * since) + 0.3 * noise)
        wave += np.where(since >= 0, ring, 0.0)
    return wave.astype(np.float32)


class Golden:
    """One stored case: inputs are made from their recipes, outputs compared within the stored tolerance."""

    def __init__(self, case):
        self.config, self.outputs, self.tolerances = case["config"], case["outputs"], case["tolerances"]
        self.recipes = case["inputs"]

    def input(self, name):
        recipe = self.recipes[name]
        if recipe["kind"] == "impacts":
            return impacts(**recipe)
        if recipe["kind"] == "json":
            return recipe["value"]
        shape, scale, shift = recipe["shape"], recipe.get("scale", 1.0), recipe.get("shift", 0.0)
        return fill.tensor(recipe.get("name", name), shape, recipe["seed"], scale, shift).numpy()

    def check(self, name, value):
        tolerance, expected = self.tolerances[name], self.outputs[name]
        rtol, atol = (0, 0) if tolerance.get("exact") else (tolerance["rtol"], tolerance["atol"])
        if isinstance(expected, dict):
            assert value == pytest.approx(expected, rel=rtol, abs=atol), name
        else:
            np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol, err_msg=name)


@pytest.fixture(scope="session")
def golden():
    cases = {case["id"]: case for case in json.loads(GOLDEN.read_text())}
    return lambda name: Golden(cases[name])
