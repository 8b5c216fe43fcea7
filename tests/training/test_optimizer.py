import json

import pytest
import torch

from mmaudio.training.config import OptimizerConfig
from mmaudio.training.optimizer import build_optimizer, learning_rate


def test_the_reference_schedule(kit):
    case = kit.case("lr_schedule_default")
    stored = json.loads((kit.root / case["json"]).read_text())
    for step, rate in stored["rows"] + stored["changes_after_warmup"]:
        assert learning_rate(step, OptimizerConfig(), 300_000) == pytest.approx(rate, rel=case["json_rtol"])


def test_cosine_goes_to_zero_after_the_warm_up():
    config = OptimizerConfig(lr=1.0, warmup=10, schedule="cosine")
    rates = [learning_rate(step, config, 110) for step in range(111)]
    assert rates[9] < rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == 0
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_constant():
    assert learning_rate(10**6, OptimizerConfig(schedule="constant"), 10) == 1e-4


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="step, cosine, constant, got 'linear'"):
        learning_rate(0, OptimizerConfig(schedule="linear"), 10)


def test_frozen_parameters_are_left_out():
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    (group,) = build_optimizer(module, OptimizerConfig(), mixed_precision=True).param_groups
    assert [p.shape for p in group["params"]] == [(2, 2)]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.95), 1e-6, 1e-6)
    assert build_optimizer(module, OptimizerConfig(), mixed_precision=False).param_groups[0]["eps"] == 1e-8
