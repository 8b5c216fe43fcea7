"""One's own weights: a network, a run or an adapter by its path, and parts that are built already."""

import dataclasses
import json

import pytest
import torch

import mmaudio
from mmaudio.cli import demo, main
from mmaudio.model.lora import add_lora, merged_state, save_adapter
from mmaudio.model.network import SIZES, MMAudio
from mmaudio.variants import TINY_16K, get_variant, network_metadata
from mmaudio.weights import BUNDLED_DIR, CONFIG_KEY, WeightError, read_metadata, read_state, save_safetensors

ONE_STEP = {"num_steps": 1, "duration": 1.0, "prompt": "wood"}
FLAGS = ["--prompt", "wood", "--duration", "1", "--num_steps", "1", "--device", "cpu"]


def one_error_line(capsys) -> str:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, captured.err
    return lines[0]


@pytest.fixture(scope="module")
def state():
    """The bundled network, slightly changed."""
    state = {key: value.float() for key, value in read_state(BUNDLED_DIR / "tiny_16k_network.safetensors").items()}
    key = "fused_blocks.0.linear1.weight"
    return state | {key: 1.5 * state[key]}


@pytest.fixture
def run(tmp_path, state):
    """What a training run leaves."""
    folder = tmp_path / "output" / "my_run"
    save_safetensors(folder / "weights" / "net.safetensors", state, network_metadata(TINY_16K) | {"step": "7"})
    save_safetensors(folder / "weights" / "adapter.safetensors", {"x": torch.zeros(1)}, {"part": "lora"})
    return folder


@pytest.fixture(scope="module")
def bundled():
    """By the path of the network, which makes few steps itself."""
    return mmaudio.load(BUNDLED_DIR / "tiny_16k_network.safetensors", device="cpu")(**ONE_STEP)[0]


def test_a_file_and_its_run(run, state, bundled):
    file = run / "weights" / "net.safetensors"
    for path in (file, str(file), run):
        variant = get_variant(path)
        assert (variant.name, variant.base) == ("net", "tiny_16k")
        assert variant.network == TINY_16K.network
    pipe = mmaudio.load(file, device="cpu")
    name = "fused_blocks.0.attn.qkv.weight"
    assert torch.equal(pipe.part("network").get_parameter(name), state[name])
    generation = pipe(**ONE_STEP)[0]
    assert generation.variant == "net"
    assert (generation.latents - bundled.latents).abs().max() > 1e-3


def test_a_relative_path_holds_after_the_folder_is_left(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    variant = get_variant("my_run")
    monkeypatch.chdir("/")
    assert mmaudio.load(variant, device="cpu", weights_dir=run).part("network") is not None


def test_sizes_come_from_the_file(tmp_path):
    small = {**vars(TINY_16K.network), "fused_blocks": 1}
    metadata = network_metadata(TINY_16K) | {CONFIG_KEY: json.dumps(small)}
    network = MMAudio(type(TINY_16K.network)(**small))
    save_safetensors(tmp_path / "small.safetensors", network.state_dict(), metadata)
    pipe = mmaudio.load(tmp_path / "small.safetensors", device="cpu")
    assert len(pipe.part("network").fused_blocks) == 1
    assert network_metadata(pipe.variant) == metadata | {CONFIG_KEY: json.dumps(small, sort_keys=True)}


def test_the_bundled_file_itself():
    assert get_variant(BUNDLED_DIR / "tiny_16k_network.safetensors").network == TINY_16K.network


def test_demo_and_info(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert demo(["--variant", str(run), "--output", str(out), *FLAGS]) == 0
    assert "using net on cpu" in capsys.readouterr().err
    assert (out / "wood.flac").exists()
    assert main(["info", str(run)]) == 0
    text = capsys.readouterr().out
    assert "made for tiny_16k" in text
    assert str(run / "weights" / "net.safetensors") in text
    assert main(["info", str(run / "weights" / "net.safetensors")]) == 0
    assert '"variant": "tiny_16k"' in capsys.readouterr().out


def test_converting_makes_a_file_that_can_be_named(tmp_path, state, capsys):
    source = tmp_path / "mine.pth"
    torch.save({"weights": state}, source)
    assert demo(["--variant", str(source), "--output", str(tmp_path / "out"), *FLAGS]) == 2
    remedy = one_error_line(capsys)
    assert f"mmaudio convert {source} --variant NAME" in remedy
    assert main(["convert", str(source), "--variant", "tiny_16k"]) == 0
    assert get_variant(tmp_path / "mine.safetensors").base == "tiny_16k"
    assert mmaudio.load(tmp_path / "mine.safetensors", device="cpu")(**ONE_STEP)[0].variant == "mine"


def test_converting_takes_nothing_away_from_what_a_file_says(tmp_path, state, capsys):
    source, target = tmp_path / "tiny_16k_network.safetensors", tmp_path / "converted.safetensors"  # a variant's file
    guided = dataclasses.replace(TINY_16K, network=dataclasses.replace(TINY_16K.network, guidance=3.0))
    save_safetensors(source, state, network_metadata(guided))
    assert main(["convert", str(source), str(target), "--variant", "tiny_16k"]) == 2
    error = one_error_line(capsys)
    assert "says that its network has guidance 3.0, tiny_16k has None; without --variant what it says is kept" in error
    assert not target.exists()
    for words in ([], ["--variant", str(source), "--overwrite"]):
        assert main(["convert", str(source), str(target), *words]) == 0
        assert get_variant(target).network.guidance == 3.0
    save_safetensors(source, state, network_metadata(TINY_16K) | {CONFIG_KEY: "[]"})
    assert main(["convert", str(source), str(target), "--variant", "tiny_16k", "--overwrite"]) == 2
    assert "cannot be used" in one_error_line(capsys)


def test_the_official_file_names_its_variant_when_converted(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "mmaudio_small_16k.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "v1-16.pth")
    assert main(["convert", str(tmp_path / "mmaudio_small_16k.pth")]) == 0
    assert main(["convert", str(tmp_path / "v1-16.pth")]) == 0
    assert read_metadata(tmp_path / "mmaudio_small_16k.safetensors")["variant"] == "small_16k"
    vae = read_metadata(tmp_path / "v1-16.safetensors")
    assert vae["part"] == "vae"
    assert "variant" not in vae


def spoiled(folder, state, **metadata):
    path = folder / "weights" / "net.safetensors"
    given = {k: v for k, v in (network_metadata(TINY_16K) | metadata).items() if v is not None}
    save_safetensors(path, state, given)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda run, state: run / "weights" / "nothing.safetensors", "no such file"),
        (lambda run, state: "no_such_run/weights", "no such file or folder"),
        (lambda run, state: run / "weights" / "adapter.safetensors", "--lora"),
        (lambda run, state: run.parent, "no flow network"),
        (lambda run, state: spoiled(run, state, variant=None), "names no variant"),
        (lambda run, state: spoiled(run, state, variant="huge_96k"), "unknown variant huge_96k"),
        (lambda run, state: spoiled(run, state, part="vae"), "holds a vae"),
        (lambda run, state: spoiled(run, state, mmaudio_config="{"), "mmaudio_config"),
        (lambda run, state: spoiled(run, state, mmaudio_config='{"wings": 2}'), "wings"),
        (lambda run, state: spoiled(run, state, mmaudio_config='{"latent_dim": 40}'), "latent_dim is 40"),
    ],
)
def test_files_that_cannot_be_used(run, state, make, says):
    with pytest.raises(WeightError, match=says) as error:
        get_variant(make(run, state))
    assert "\n" not in str(error.value)


def test_a_run_with_two_networks(run, state):
    save_safetensors(run / "weights" / "other.safetensors", state, network_metadata(TINY_16K))
    with pytest.raises(WeightError, match=r"2 flow networks \(net.safetensors, other.safetensors\)"):
        get_variant(run)


def test_damaged(run, capsys, tmp_path):
    path = run / "weights" / "net.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert demo(["--variant", str(path), "--output", str(tmp_path / "out"), *FLAGS]) == 2
    assert "truncated" in one_error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_is_no_path():
    with pytest.raises(ValueError, match="unknown variant 'huge_96k'"):
        get_variant("huge_96k")
    with pytest.raises(ValueError, match="unknown variant ''"):
        get_variant("")


# ---- adapters


@pytest.fixture(scope="module")
def adapted(state):
    network = MMAudio(TINY_16K.network)
    network.load_state_dict(state)
    add_lora(network, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return network.state_dict()


@pytest.fixture
def adapter(tmp_path, adapted):
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapted, TINY_16K.network, "tiny_16k")
    return path


@pytest.mark.parametrize("low_memory", [False, True])
def test_an_adapter_is_the_merged_network(run, adapter, adapted, low_memory):
    file = run / "weights" / "net.safetensors"
    pipe = mmaudio.load(file, device="cpu", lora=adapter, low_memory=low_memory)
    merged = MMAudio(TINY_16K.network)
    merged.load_state_dict(merged_state(adapted))
    expected = mmaudio.Pipeline(file, device="cpu", parts={"network": merged})
    (got,), (wanted,) = pipe(**ONE_STEP), expected(**ONE_STEP)
    torch.testing.assert_close(got.latents, wanted.latents, rtol=0, atol=1e-4)


def test_strength_several_and_the_command(run, adapter, tmp_path, bundled, capsys):
    weak = mmaudio.load("tiny_16k", device="cpu", lora=[adapter, adapter], lora_strength=0.25)(**ONE_STEP)[0]
    strong = mmaudio.load("tiny_16k", device="cpu", lora=[adapter], lora_strength=0.5)(**ONE_STEP)[0]
    torch.testing.assert_close(weak.latents, strong.latents, rtol=0, atol=1e-4)
    assert (weak.latents - bundled.latents).abs().max() > 1e-3
    out = ["--output", str(tmp_path / "out"), *FLAGS]
    assert demo(["--variant", str(run), "--lora", str(adapter), "--lora_strength", "0.5", "seed=3", *out]) == 0
    assert "adapter.safetensors, times 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lora", "missing.safetensors"], "missing.safetensors"),
        (["--lora", ""], "--lora is empty"),
        (["--lora", str(BUNDLED_DIR / "tiny_16k_network.safetensors")], "no LoRA adapter"),
        (["--lora_strength", "nan"], "lora_strength"),
        (["--variant", ""], "--variant is empty"),
    ],
)
def test_bad_adapters_fail_before_the_work(tmp_path, capsys, arguments, says):
    assert demo(["--variant", "tiny_16k", "--output", str(tmp_path / "out"), *FLAGS, *arguments]) == 2
    assert says in one_error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_network(adapter):
    with pytest.raises(WeightError, match="made for tiny_16k with hidden_dim 128, this network has 448"):
        mmaudio.load("small_16k", device="cpu", lora=adapter)
    assert SIZES["small_16k"].hidden_dim == 448


# ---- parts that are built already


def test_given_parts_are_used_and_stay(bundled):
    loaded = mmaudio.Pipeline("tiny_16k", device="cpu")
    given = {name: loaded.part(name) for name in ("network", "codec")}
    pipe = mmaudio.Pipeline("tiny_16k", device="cpu", low_memory=True, parts=given)
    torch.testing.assert_close(pipe(**ONE_STEP)[0].latents, bundled.latents, rtol=0, atol=1e-5)
    assert all(pipe.part(name) is part for name, part in given.items())
    half = mmaudio.Pipeline("tiny_16k", device="cpu", dtype=torch.bfloat16, parts=given)
    assert half.part("network").dtype == torch.bfloat16


def test_senseless_parts(adapter):
    with pytest.raises(ValueError, match="unknown part 'engine'"):
        mmaudio.Pipeline("tiny_16k", device="cpu", parts={"engine": torch.nn.Identity()})
    with pytest.raises(ValueError, match="load_adapter"):
        mmaudio.Pipeline("tiny_16k", device="cpu", lora=adapter, parts={"network": torch.nn.Identity()})
