"""What only a GPU can show of training; skipped, visibly, without one."""

import json

import pytest
from small import small_config, small_task

from mmaudio.training import loop
from mmaudio.training.distributed import ranks

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_a_gpu_learns_what_a_cpu_does(tmp_path, strategy, compiled, precision, tolerance):
    losses = {}
    for device, settings in (
        ("cpu", {}),
        ("cuda", {"strategy": strategy, "compile": compiled, "precision": precision}),
    ):
        config = small_config(**settings)
        with ranks(device, 60, config.strategy) as here:
            result, _ = loop.train(small_task(), config, here, tmp_path / device, print)
        assert result.exists()
        rows = [json.loads(line) for line in (tmp_path / device / "stats.jsonl").read_text().splitlines()]
        losses[device] = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=tolerance)
