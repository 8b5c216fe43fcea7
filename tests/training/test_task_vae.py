"""The VAE's task: it learns, its critic plays when it should, and its weights are those inference loads."""

import dataclasses

import pytest
import torch
from mediatasks import draw, fit, halves, read_batch, task_config, without_gradient, write_manifest, write_sounds

from mmaudio.codec.mel import MEL_16K, MEL_44K, MelSpectrogram
from mmaudio.codec.vae import VAEConfig
from mmaudio.data.manifest import ManifestError
from mmaudio.loading import load_codec
from mmaudio.media import MediaError
from mmaudio.training.config import DataConfig, DataEntry
from mmaudio.training.task import Nets
from mmaudio.training.tasks import vae
from mmaudio.variants import VARIANTS
from mmaudio.weights import WeightError, read_metadata, read_state, save_safetensors

CPU = torch.device("cpu")
SMALL = {"seconds": 0.5, "critic_width": 4, "adversarial_start": 0, "statistics_clips": 4}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture
def small_variants(monkeypatch):
    tiny, large = VARIANTS["tiny_16k"], VARIANTS["large_44k"]
    monkeypatch.setitem(VARIANTS, "tiny_16k", dataclasses.replace(tiny, vae=VAEConfig(80, 20, width=16)))
    monkeypatch.setitem(VARIANTS, "large_44k", dataclasses.replace(large, vae=VAEConfig(128, 40, width=16)))


def build(manifest, options=None, **changes):
    return vae.build(task_config("vae", manifest, SMALL | (options or {}), **changes), CPU)


def test_it_learns_and_the_result_loads(sounds, small_variants, tmp_path):
    task = build(sounds, {"adversarial_start": 24})
    batch = read_batch(task)
    record = fit(task, batch, steps=36, lr=0.02)
    assert record[-1]["l1"] < 0.6 * record[0]["l1"]
    assert record[-1]["mse"] < 0.3 * record[0]["mse"]
    assert "adversarial" not in record[23]
    assert record[-1]["critic"] < record[24]["critic"] == pytest.approx(1, abs=0.1)
    assert without_gradient(task.network) == []
    assert all(p.grad is not None for p in task.critic.parameters())  # a bias may rest where the hinge is symmetric

    save_safetensors(tmp_path / task.file_name, task.export(task.network.state_dict()), task.metadata)
    assert read_metadata(tmp_path / task.file_name)["part"] == "vae"
    codec = load_codec(VARIANTS["tiny_16k"], tmp_path)
    mel = codec.mel(batch.wave)
    trained = task.network.eval()
    with torch.no_grad():
        posterior = trained.encode(mel)
        assert torch.allclose(codec.encode(batch.wave).mean.mT, posterior.mean, atol=1e-4)
        decoded = codec.decode_mel(posterior.mean.mT)
        assert torch.allclose(decoded, trained.decode(posterior.mean), atol=1e-3)
    mean_mel = mel.mean((0, 2), keepdim=True)
    assert (decoded - mel).abs().mean() < 0.8 * (mean_mel - mel).abs().mean()


def test_every_parameter_learns_without_a_critic(sounds, small_variants):
    task = build(sounds, {"adversarial_weight": 0})
    assert task.critic is task.critic_loss is None
    fit(task, read_batch(task, 2), steps=1, lr=1e-3)
    assert without_gradient(task.network) == []


@pytest.mark.parametrize("variant", ["tiny_16k", "large_44k"])
def test_what_is_quiet_can_count_less(sounds, small_variants, variant):
    task = build(sounds, {"adversarial_weight": 0, "quiet_weight": 0.1}, variant=variant)
    log_mel = task.loss.front_end(read_batch(task).wave)
    mel = task.network.standardize(log_mel)  # (B, M, F)
    weight = task.loss.audible(mel)
    assert weight.shape == mel.shape
    assert torch.allclose(weight.mean((1, 2)), torch.ones(len(weight)))
    ratio = weight / weight.amax((1, 2), keepdim=True)
    magnitude = task.loss.front_end.to_magnitude(log_mel)
    share = magnitude / magnitude.amax((1, 2), keepdim=True)
    assert ratio[share == 1].min() == 1
    assert torch.allclose(ratio[share < 0.99e-3], torch.tensor(0.1), atol=1e-3)
    assert torch.allclose(ratio[(share - 0.1).abs() < 2e-3], torch.tensor(0.7), atol=0.02)  # 20 of the 60 dB below
    assert build(sounds, {"adversarial_weight": 0}).loss.audible(mel) == 1.0


@pytest.mark.parametrize("adversarial_start", [0, 10])
def test_loss_is_a_function_of_batch_and_draw_alone(sounds, small_variants, adversarial_start):
    task = build(sounds, {"adversarial_start": adversarial_start})
    batch = read_batch(task)
    whole, parts = halves(task, batch, task.loss)
    assert parts == pytest.approx(whole, rel=1e-5)
    if adversarial_start == 0:
        whole, parts = halves(task, batch, task.critic_loss)
        assert parts == pytest.approx(whole, rel=1e-5)
    nets = Nets(task.network.eval(), task.critic)  # in training mode a forward pass rounds the weights once more
    losses = [task.loss(nets, batch, draw(batch, step, seed)).total.item() for step, seed in ((5, 1), (5, 1), (6, 1))]
    assert losses[0] == losses[1] != losses[2]


def test_the_critic_waits_and_does_not_judge_in_validation(sounds, small_variants):
    task = build(sounds, {"adversarial_start": 3})
    batch, nets = read_batch(task), Nets(task.network.train(), task.critic)
    assert not task.critic_loss(nets, batch, draw(batch, step=2)).total.requires_grad
    assert task.critic_loss(nets, batch, draw(batch, step=3)).total.requires_grad
    assert "adversarial" in task.loss(nets, batch, draw(batch, step=3)).parts
    task.network.eval()
    with torch.no_grad():
        assert "adversarial" not in task.loss(nets, batch, draw(batch, step=3)).parts


def test_the_critic_pulls_with_its_weight(sounds, small_variants):
    """The adversarial gradient at each reconstruction is `adversarial_weight` times that of the distances."""
    task = build(sounds, {"adversarial_weight": 0.25})
    batch, seen = read_batch(task), {}

    class Recorder(torch.nn.Module):
        def forward(self, mel, noise):
            x, y, mean, std = task.network(mel, noise)
            seen["x"], seen["y"] = x, y.detach().requires_grad_()
            return x, seen["y"], mean, std

    task.loss(Nets(Recorder(), task.critic), batch, draw(batch)).total.backward()
    both, y = seen["y"].grad, seen["y"].detach().requires_grad_()
    ((y - seen["x"]).abs().mean() + (y - seen["x"]).square().mean()).backward()
    ratio = (both - y.grad).flatten(1).norm(dim=1) / y.grad.flatten(1).norm(dim=1)
    assert ratio.tolist() == pytest.approx([0.25] * 4, rel=1e-3)


def test_mel_statistics_are_of_the_training_data(sounds, small_variants):
    task = build(sounds, {"seconds": 2.1, "statistics_clips": 100})  # longer than the clips: no cut is random
    mel = MelSpectrogram(MEL_16K)(read_batch(task).wave)
    assert torch.allclose(task.network.data_mean, mel.mean((0, 2)).view(1, -1, 1), atol=1e-4)
    assert torch.allclose(task.network.data_std, mel.std((0, 2)).view(1, -1, 1).clamp(min=0.01), atol=1e-3)
    some = [build(sounds, {"statistics_clips": 2}).network.data_mean for _ in range(2)]
    assert torch.equal(*some)
    assert not torch.allclose(some[0], task.network.data_mean, atol=1e-3)


def test_another_sample_rate(sounds, small_variants):
    task = build(sounds, variant="large_44k")
    assert task.file_name == "v1-44.safetensors"
    wave = read_batch(task).wave
    assert wave.shape[1] % (2 * MEL_44K.hop_length) == 0
    assert wave.shape[1] / 44_100 == pytest.approx(0.5, abs=0.02)
    record = fit(task, read_batch(task, 2), steps=1, lr=1e-3)
    assert record[0]["l1"] > 0


def test_starting_from_weights(sounds, tmp_path):
    bundled = read_state(vae.start_weights(task_config("vae", sounds, weights="tiny_16k"), "vae")[1])
    task = build(sounds, weights="tiny_16k", variant=None)
    assert {k: v.half() for k, v in task.network.state_dict().items()}.keys() == bundled.keys()
    assert all(torch.equal(v.half(), bundled[k]) for k, v in task.network.state_dict().items())
    del bundled["data_mean"]
    save_safetensors(tmp_path / "cut.safetensors", bundled)
    with pytest.raises(WeightError, match=r"cut\.safetensors.*data_mean"):
        build(sounds, weights=str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"second": 1.0}, {}, "task vae: Key 'second'.*statistics_clips"),
        ({"seconds": "long"}, {}, "task vae: .*'long'"),
        ({"seconds": -1.0}, {}, r"task\.seconds must be above zero, got -1"),
        ({}, {"strategy": "fsdp"}, "set strategy=ddp"),
        ({}, {"variant": None}, "needs variant=NAME"),
        ({}, {"variant": "huge"}, "unknown variant 'huge'"),
        ({}, {"data": DataConfig()}, r"data\.train is empty"),
        ({}, {"data": DataConfig(train=[DataEntry(store="s")])}, "data entry s: .* manifest"),
        ({}, {"data": DataConfig(train=[DataEntry(manifest="m.tsv", text=False)])}, "data entry m.tsv: .*task=flow"),
    ],
)
def test_bad_settings_are_one_line(sounds, options, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        build(sounds, options, **changes)
    assert "\n" not in str(error.value)


def test_bad_data_are_one_line(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.tsv"):
        build(tmp_path / "none.tsv")
    (tmp_path / "broken.wav").write_bytes(b"RIFF, and then nothing")
    with pytest.raises(MediaError, match=r"broken\.wav") as error:
        build(write_manifest(tmp_path, ["id\tpath", "a\tbroken.wav"]))
    assert "\n" not in str(error.value)
