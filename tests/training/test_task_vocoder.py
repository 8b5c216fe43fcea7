"""The vocoder's task: bigvgan's losses and critics, and weights in the layout that inference loads."""

import dataclasses

import pytest
import torch
from mediatasks import draw, fit, halves, read_batch, task_config, without_gradient, write_sounds

from mmaudio.codec.vocoder import build_bigvgan, fold_weight_norm, load_bigvgan, load_bigvgan_for_training
from mmaudio.training.task import Nets
from mmaudio.training.tasks import vocoder
from mmaudio.variants import VARIANTS
from mmaudio.weights import read_state, save_safetensors

CPU = torch.device("cpu")
SMALL = {"small": True, "frames": 8, "critic_width": 1 / 32}
OFFICIAL = dataclasses.replace(VARIANTS["large_44k"].vocoder, upsample_initial_channel=64)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(autouse=True)
def fewer_channels(monkeypatch):
    small = vocoder.small_bigvgan

    def smaller(mel):
        return dataclasses.replace(
            small(mel), upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),)
        )

    monkeypatch.setattr(vocoder, "small_bigvgan", smaller)


def build(manifest, options=None, **changes):
    return vocoder.build(task_config("vocoder", manifest, SMALL | (options or {}), **changes), CPU)


def test_it_learns_and_the_result_loads(sounds, tmp_path):
    task = build(sounds, {"adversarial_start": 20})
    batch = read_batch(task, 2)
    record = fit(task, batch, steps=22, lr=2e-3)
    assert record[-1]["mel"] < 0.5 * record[0]["mel"]
    assert "critic" not in record[19]
    assert {"features", "adversarial", "critic"} <= record[20].keys()
    assert record[21]["critic"] < record[20]["critic"]
    assert without_gradient(task.network) == without_gradient(task.critic) == []

    path = tmp_path / task.file_name
    assert path.name == "tiny_16k_vocoder.safetensors"
    save_safetensors(path, task.export(task.network.state_dict()), task.metadata)
    state = read_state(path)
    assert {"conv_pre.weight_g", "conv_pre.weight_v", "ups.0.0.weight_v"} <= state.keys()
    loaded = load_bigvgan(vocoder.small_bigvgan(VARIANTS["tiny_16k"].mel), state, source=str(path))
    mel = task.loss.front_end(batch.wave)
    with torch.no_grad():
        wave = loaded(mel)
        assert wave.shape == (2, 1, 8 * 256)
        assert torch.allclose(wave, task.network(mel), atol=1e-5)


def test_loss_is_a_function_of_the_batch_alone(sounds):
    task = build(sounds)
    batch = read_batch(task, 2)
    for loss in (task.loss, task.critic_loss):
        whole, parts = halves(task, batch, loss)
        assert parts == pytest.approx(whole, rel=1e-5)
    task.network.eval()  # validation
    parts = task.loss(Nets(task.network, task.critic), batch, draw(batch)).parts
    assert parts.keys() == {"mel"}


def test_an_official_layout_trains_from_any_spelling_of_its_weights(sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIANTS, "large_44k", dataclasses.replace(VARIANTS["large_44k"], vocoder=OFFICIAL))
    torch.manual_seed(1)
    original = build_bigvgan(OFFICIAL)
    folded = fold_weight_norm(load_bigvgan_for_training(OFFICIAL, original.state_dict(), "original"))
    torch.save({"generator": folded.state_dict()}, tmp_path / "folded.pt")
    task = build(sounds, {"small": False}, variant="large_44k", weights=str(tmp_path / "folded.pt"))
    assert task.file_name == "bigvgan_v2_44khz_128band_512x.safetensors"
    assert task.network.state_dict().keys() == original.state_dict().keys()
    batch = read_batch(task, 1)
    mel = task.loss.front_end(batch.wave)
    with torch.no_grad():
        assert torch.allclose(task.network(mel), original(mel), atol=1e-5)
        assert torch.allclose(task.network(mel), folded(mel), atol=1e-5)
    critics = task.critic(*2 * [torch.zeros(1, 1, 8192)])
    assert len(critics[0]) == 5 + 3  # periods, constant-Q transforms


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"small": False}, {}, r"tiny_16k has no vocoder to train.*task\.small=true"),
        ({"frames": 7}, {}, r"task\.frames must be at least 8, got 7"),
        ({"critic_width": 0}, {}, r"task\.critic_width must be above zero, got 0"),
        ({"widht": 1}, {}, "task vocoder: Key 'widht'.*critic_width"),
        ({}, {"weights": "tiny_16k"}, "variant tiny_16k has no trained vocoder"),
    ],
)
def test_bad_settings_are_one_line(sounds, options, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        build(sounds, options, **changes)
    assert "\n" not in str(error.value)
