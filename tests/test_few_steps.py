"""The network for few steps beside a variant's own: its file, when it is used, and what is said then."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import mmaudio
from mmaudio import long
from mmaudio.cli import demo
from mmaudio.few_steps import FewStep, choose
from mmaudio.loading import load_few_step, load_network
from mmaudio.model.difference import factored, save_difference
from mmaudio.model.lora import delta
from mmaudio.model.network import MMAudio
from mmaudio.request import read_request
from mmaudio.variants import TINY_16K, Variant, get_variant, network_metadata
from mmaudio.weights import CONFIG_KEY, WeightError, WeightFile, read_metadata, save_safetensors

SLIM = dataclasses.replace(TINY_16K.network, hidden_dim=32, num_heads=1, joint_blocks=1, fused_blocks=1)
FEW = dataclasses.replace(SLIM, guidance=3.0, few_step=True)
RANK = 3  # of the changes of the student's weights


def network_of(config) -> MMAudio:
    """Random where a new network is zero."""
    torch.manual_seed(1)
    network = MMAudio(config)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def write(path, config, state) -> None:
    save_safetensors(path, state, network_metadata(dataclasses.replace(TINY_16K, network=config)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a teacher, its student and the file of their difference."""
    folder = tmp_path_factory.mktemp("weights")
    teacher, student = network_of(SLIM).state_dict(), network_of(FEW).state_dict()
    for key, x in teacher.items():
        if x.ndim > 1 and key.endswith("weight"):
            change = torch.randn(len(x), RANK) @ torch.randn(RANK, x.flatten(1).shape[1]) / 50
            student[key] = x + change.view_as(x)
        else:
            student[key] = x + 0.05 * torch.randn_like(x)
    write(folder / "teacher.safetensors", SLIM, teacher)
    write(folder / "student.safetensors", FEW, student)
    lost = save_difference(
        folder / "few.safetensors", folder / "student.safetensors", folder / "teacher.safetensors", RANK
    )
    assert lost < 1e-3
    return folder


@pytest.fixture
def variant(made) -> Variant:
    """Quick to make sound with: short and slim."""
    file, few_step = (WeightFile(str(made / f"{name}.safetensors"), url=None) for name in ("teacher", "few"))
    files = dataclasses.replace(TINY_16K.files, network=file)
    return dataclasses.replace(TINY_16K, name="slim", network=SLIM, files=files, few_step=few_step, pad_to=0.0)


@pytest.fixture
def evaluations(monkeypatch) -> list:
    """(batch, until - t) of every evaluation of a network."""
    seen, velocity = [], MMAudio.velocity

    def counted(self, latent, t, conditions, until=None):
        seen.append((conditions.batch, None if until is None else round((until - t)[0].item(), 4)))
        return velocity(self, latent, t, conditions, until)

    monkeypatch.setattr(MMAudio, "velocity", counted)
    return seen


# ---- the file


def test_what_is_written_makes_the_student_of_the_teacher(made, variant):
    network, student = load_few_step(variant), load_file(made / "student.safetensors")
    assert network.config == FEW
    for key, x in network.state_dict().items():
        torch.testing.assert_close(x, student[key], rtol=1e-3, atol=1e-3)
    assert (made / "few.safetensors").stat().st_size < (made / "student.safetensors").stat().st_size / 3
    assert all(x.dtype == torch.float16 for x in load_file(made / "few.safetensors").values())


def test_of_a_change_the_strongest_directions_are_kept(made, tmp_path):
    change = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(delta(*factored(change, 12), 1.0), change, rtol=0, atol=1e-5)
    rest = (delta(*factored(change, 4), 1.0) - change).norm()
    torch.testing.assert_close(rest, torch.linalg.svdvals(change.flatten(1))[4:].norm())

    teacher, student = made / "teacher.safetensors", made / "student.safetensors"
    lost = [save_difference(tmp_path / f"{rank}.safetensors", student, teacher, rank) for rank in (1, 2, 1000)]
    assert 0.9 > lost[0] > lost[1] > 0.1
    assert lost[2] < 1e-3
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        save_difference(tmp_path / "0.safetensors", student, teacher, 0)


def rewrite(path, target, metadata=None, **changes) -> None:
    state = {key: x for key, x in (load_file(path) | changes).items() if x is not None}
    save_safetensors(target, state, read_metadata(path) | (metadata or {}))


def config_with(**changes) -> dict[str, str]:
    return {CONFIG_KEY: json.dumps({**vars(FEW), **changes})}


QKV = "fused_blocks.0.attn.qkv"


@pytest.mark.parametrize(
    ("metadata", "changes", "says"),
    [
        ({"base": "abc"}, {}, "made for other weights than .*teacher.safetensors; use it with the network"),
        (config_with(hidden_dim=64), {}, "made for a network with hidden_dim 64, not 32"),
        (config_with(few_step=False), {}, "metadata cannot be used"),
        (config_with(guidance="much"), {}, "metadata cannot be used"),
        ({CONFIG_KEY: "[]"}, {}, "metadata cannot be used"),
        ({"part": "lora"}, {}, "holds a lora, expected what makes one for few steps"),
        ({}, {f"{QKV}.lora_B.weight": None}, "no pair"),
        ({}, {f"{QKV}.lora_A.weight": torch.zeros(3, 65)}, "do not fit"),
        ({}, {f"{QKV}.lora_A.weight": torch.tensor(1.0)}, "do not fit"),
        ({}, {f"{QKV}.bias.diff": torch.zeros(1)}, "is changed by"),
        ({}, {"interval_proj.weight.diff": None}, "1 keys missing"),
        ({}, {"x.bias.diff": torch.zeros(1)}, "1 keys unexpected"),
        ({}, {"what": torch.zeros(1)}, "no pair"),
    ],
)
def test_bad_files(made, variant, tmp_path, metadata, changes, says):
    path = tmp_path / "bad.safetensors"
    rewrite(made / "few.safetensors", path, metadata, **changes)
    with pytest.raises(WeightError, match=says) as error:
        load_few_step(dataclasses.replace(variant, few_step=WeightFile(str(path), url=None)))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_where_the_file_has_no_place(made):
    path = made / "few.safetensors"
    with pytest.raises(
        WeightError, match="is no whole network; tiny_16k uses it by itself, with --num_steps 4 or less"
    ):
        get_variant(path)
    with pytest.raises(WeightError, match="no adapter to add, but makes tiny_16k a network for few steps"):
        mmaudio.Pipeline("tiny_16k", "cpu", lora=path)


# ---- when it is used

HERE = FewStep(guidance=3.0)


@pytest.mark.parametrize(
    ("few_step", "wanted", "by", "says"),
    [
        (HERE, {}, "few_step", "made by the network for few steps, with a guidance of 3 in it"),
        (HERE, {"num_steps": 1}, "few_step", "made by"),
        (HERE, {"num_steps": 5}, "network", ""),
        (HERE, {"solver": "heun"}, "network", ""),
        (
            HERE,
            {"cfg_strength": 4.5},
            "network",
            "coarse: the network for few steps has a guidance of 3 in it, not 4.5",
        ),
        (HERE, {"negative": True}, "network", "coarse: the network for few steps takes no negative prompt"),
        (FewStep(3.0, "few.safetensors was made for another network"), {}, "network", "made for another network"),
        (None, {}, "network", ""),
    ],
)
def test_the_choice(few_step, wanted, by, says):
    made_by, note = choose(SimpleNamespace(few_step=few_step), **{"num_steps": 4, "cfg_strength": 3.0} | wanted)
    assert made_by == by
    assert says in note
    assert bool(says) == bool(note)


def test_at_many_steps_it_is_not_even_looked_for():
    assert choose(SimpleNamespace(), 5, 3.0) == choose(SimpleNamespace(), 4, 3.0, "heun") == ("network", "")


WORDS = {"prompt": "a bell", "duration": 1.0}


def test_few_steps_are_made_by_it_and_nobody_loses_a_negative_prompt(made, variant, evaluations):
    pipe = mmaudio.Pipeline(variant, "cpu")
    [alone] = pipe(**WORDS, num_steps=4, cfg_strength=3)
    assert evaluations == [(1, 0.25)] * 4
    assert alone.notes == ("made by the network for few steps, with a guidance of 3 in it",)
    assert "network" not in pipe._parts
    [other] = pipe(**WORDS, num_steps=4, cfg_strength=3, negative_prompt="hum")
    assert evaluations[4:] == [(2, None)] * 4
    assert "takes no negative prompt" in other.notes[0]

    # together as alone, each by its own network
    asks = [read_request(variant, **WORDS, **more) for more in ({}, {"negative_prompt": "hum"}, {"seed": 43})]
    del evaluations[:]
    together = pipe.generate(asks, num_steps=4, cfg_strength=3)
    assert evaluations == [(2, 0.25)] * 4 + [(2, None)] * 4
    for expected, [got] in zip((alone, other), together, strict=False):
        torch.testing.assert_close(got.latents, expected.latents, rtol=0, atol=1e-4)
        assert got.notes == expected.notes
    assert [takes[0].seed for takes in together] == [42, 42, 43]

    # the student itself says the same, and takes 4 steps unless told otherwise
    own = mmaudio.Pipeline(variant, "cpu", parts={"network": load_few_step(variant)})
    own.variant = dataclasses.replace(variant, network=FEW)
    del evaluations[:]
    [same] = own(**WORDS)
    assert evaluations == [(1, 0.25)] * 4
    torch.testing.assert_close(same.latents, alone.latents, rtol=0, atol=1e-4)


def test_long_videos_and_little_memory(variant, evaluations):
    pipe = mmaudio.Pipeline(variant, "cpu", low_memory=True)
    spec = variant.spec.with_duration(2)
    windows = long.plan(2 * spec.latent_len, spec.latent_len, 20)
    conditions = pipe.conditions((None,) * 4, spec, len(windows.starts), "few_step")
    long.solve(pipe, windows, [conditions], [5], 2, 3.0, "euler", None, "few_step")
    assert evaluations == [(len(windows.starts), 0.5)] * 2
    assert list(pipe._parts) == ["few_step"]


def test_where_it_is_not_used(made, variant, tmp_path):
    def by_path(**changes):
        return mmaudio.Pipeline(dataclasses.replace(variant, **changes), "cpu").few_step

    assert by_path() == FewStep(3.0)
    absent = WeightFile(str(tmp_path / "absent.safetensors"), url=None)
    assert by_path(few_step=absent) is None
    assert get_variant(made / "teacher.safetensors").few_step is None
    assert mmaudio.Pipeline(variant, "cpu", parts={"network": load_network(variant)}).few_step is None
    state = load_file(made / "teacher.safetensors")
    write(tmp_path / "other.safetensors", SLIM, {key: 2 * x for key, x in state.items()})
    files = dataclasses.replace(variant.files, network=WeightFile(str(tmp_path / "other.safetensors"), url=None))
    assert by_path(files=files) == FewStep(3.0, "few.safetensors was made for another network")


def test_the_command(made, evaluations, capsys, tmp_path, monkeypatch):
    words = ["--prompt", "a bell", "--duration", "1", "--device", "cpu", "--output", str(tmp_path / "a")]
    assert demo([*words, "--variant", str(made / "student.safetensors")]) == 0
    assert evaluations == [(1, 0.25)] * 4
    capsys.readouterr()
    own = dataclasses.replace(
        TINY_16K, few_step=WeightFile(str(made / "few.safetensors"), url=None), network=SLIM,
        files=dataclasses.replace(TINY_16K.files, network=WeightFile(str(made / "teacher.safetensors"), url=None)),
    )  # fmt: skip
    monkeypatch.setitem(mmaudio.variants.VARIANTS, "tiny_16k", own)
    flags = ["--variant", "tiny_16k", "--num_steps", "2", "--cfg_strength", "3", "--overwrite"]
    assert demo([*words, *flags]) == 0
    assert evaluations[4:] == [(1, 0.5)] * 2
    assert "note: made by the network for few steps" in capsys.readouterr().err
