"""What only a GPU can show of training; skipped, visibly, without one."""

import json
import math

import pytest
from small import small_config, small_task

from mmaudio.training import loop
from mmaudio.training.distributed import ranks

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns(tmp_path, strategy, compiled, precision):
    said = []
    config = small_config(strategy=strategy, compile=compiled, precision=precision, steps=60)
    with ranks("cuda", 60, strategy) as here:
        result, _ = loop.train(small_task(), config, here, tmp_path, said.append)
    assert result.exists()
    assert not any("does not work here" in line for line in said)  # else it went on without compilation
    rows = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
