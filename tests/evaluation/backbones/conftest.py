import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

DATA = Path(__file__).parents[2] / "data" / "evaluation" / "backbones"
sys.path.insert(0, str(DATA))

import fill_extra  # noqa: E402
import inputs  # noqa: E402

INTEGERS = {"int64": torch.int64, "int32": torch.int32}


class Case:
    """One stored case of the reference: inputs from their recipes, outputs within the stored tolerances."""

    def __init__(self, case):
        self.id, self.config, self.outputs, self.seed = case["id"], case["config"], case["outputs"], case["fill_seed"]
        self._recipes = case["inputs"]
        self._stored = load_file(DATA / case["file"]) if "file" in case else {}

    def input(self, name):
        made = inputs.make(name, self._recipes[name])
        norm = self._recipes[name]["probe"]["l2"]
        assert abs(float(made.double().norm()) - norm) <= 1e-5 * norm, f"input {name} differs from its recipe"
        return made

    def check(self, scale=1.0, **found):
        """Arrays or plain values by the names of outputs, whose dots are written as _; tolerances times `scale`."""
        for name, value in found.items():
            name = next(known for known in self.outputs if known.replace(".", "_") == name)
            stored, tolerance = self.outputs[name], self.outputs[name]["tol"]
            if stored["stored"] == "json":
                if tolerance.get("exact"):
                    assert value == stored["value"], f"{self.id} {name}"
                else:
                    assert value == pytest.approx(stored["value"], rel=tolerance["rtol"], abs=tolerance["atol"])
                continue
            value = torch.as_tensor(value)
            assert list(value.shape) == stored["shape"], f"{self.id} {name}"
            got = value.flatten()[:: stored.get("stride", 1)].double().numpy()
            expected = self._stored[name].flatten().double().numpy()
            np.testing.assert_allclose(
                got,
                expected,
                rtol=scale * tolerance["rtol"],
                atol=scale * tolerance["atol"],
                err_msg=f"{self.id} {name}",
            )
            if "mean_abs" in tolerance:
                assert np.abs(got - expected).mean() <= tolerance["mean_abs"], f"{self.id} {name}"
            # of the whole tensor, for what lies between the stored elements
            assert value.double().norm().item() == pytest.approx(stored["stats"]["l2"], rel=2e-3), f"{self.id} {name}"


@pytest.fixture(scope="session")
def case():
    cases = {case["id"]: case for case in json.loads((DATA / "golden.json").read_text())["cases"]}
    return lambda name: Case(cases[name])


@pytest.fixture(scope="session")
def shapes():
    """(dtype, shape) of each key of an official file, by the manifest's name."""
    return lambda name: json.loads((DATA / "manifests" / f"{name}.json").read_text())["state_dict"]


@pytest.fixture(scope="session")
def filled(shapes):
    """The reference's weights for the golden cases in the official layout; constants of front ends are zero."""

    def state(name, seed, wanted=lambda key: True):
        made = {}
        for key, (dtype, shape) in shapes(name).items():
            if wanted(key):
                value = None if dtype in INTEGERS else fill_extra.value_for(key, shape, seed)
                made[key] = torch.zeros(shape, dtype=INTEGERS.get(dtype)) if value is None else value
        return made

    return state


@pytest.fixture(autouse=True)
def _own_world(monkeypatch, tmp_path):
    """No weights but those of a test."""
    monkeypatch.delenv("MMAUDIO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="session")
def class_names():
    """AudioSet's `class_labels_indices.csv` (Google, CC BY 4.0)."""
    with open(DATA / "class_labels_indices.csv", newline="") as table:
        return [row["display_name"] for row in csv.DictReader(table)]
