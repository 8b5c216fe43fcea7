"""scripts/synthesize_ema.py: from a run's snapshots, or the reference's, to a file that is loaded by its path."""

import pytest
import torch
from scripts_loading import load_script

from mmaudio.model.lora import add_lora, merged_state
from mmaudio.model.network import MMAudio
from mmaudio.training.ema import PostHocEMA, synthesize
from mmaudio.variants import TINY_16K, get_variant, network_metadata
from mmaudio.weights import BUNDLED_DIR, read_metadata, read_state


@pytest.fixture(scope="module")
def script():
    return load_script("synthesize_ema")


def snapshots(folder, network, metadata):
    ema = PostHocEMA(network.state_dict())
    for k in range(1, 9):
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.mul_(0.99)
        ema.update(network.state_dict())
        if k % 2 == 0:
            ema.snapshot(folder, ema.averages(), metadata=metadata)
    return ema


@pytest.fixture
def run(tmp_path):
    network = MMAudio(TINY_16K.network)
    network.load_state_dict(read_state(BUNDLED_DIR / "tiny_16k_network.safetensors"))
    snapshots(tmp_path / "my_run" / "ema", network, network_metadata(TINY_16K) | {"codec": "abc"})
    return tmp_path / "my_run"


def test_the_file_is_taken_by_its_path(script, run, capsys):
    assert script.main([str(run), "--sigma_rel", "0.08"]) == 0
    path = run / "my_run_ema0.08.safetensors"
    assert capsys.readouterr().out.strip() == str(path)
    metadata = read_metadata(path)
    assert (metadata["sigma_rel"], metadata["step"], metadata["codec"]) == ("0.08", "8", "abc")
    variant = get_variant(path)
    assert variant.base == "tiny_16k"
    expected, got = synthesize(run / "ema", 0.08), read_state(path)
    assert got.keys() == expected.keys() == MMAudio(TINY_16K.network).state_dict().keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)

    assert script.main([str(run), "--sigma_rel", "0.08"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert script.main([str(run), "--sigma_rel", "0.08", "--overwrite"]) == 0
    assert script.main([str(run / "ema"), "--step", "6", "--output", str(run / "x.safetensors")]) == 0
    assert torch.equal(read_state(run / "x.safetensors")["latent_std"], expected["latent_std"])
    assert read_metadata(run / "x.safetensors")["step"] == "6"


def test_adapters_are_merged(script, tmp_path):
    network = MMAudio(TINY_16K.network)
    add_lora(network, 2)
    with torch.no_grad():
        network.get_parameter("fused_blocks.0.linear1.parametrizations.weight.0.lora_B").normal_()
    ema = snapshots(tmp_path / "ema", network, network_metadata(TINY_16K))
    assert script.main([str(tmp_path), "--output", str(tmp_path / "x.safetensors")]) == 0
    got, expected = read_state(tmp_path / "x.safetensors"), merged_state(ema.averages()[0])
    assert got.keys() == MMAudio(TINY_16K.network).state_dict().keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)


def test_the_reference_s_folder(script, run, capsys):
    folder = run.parent / "old" / "ema_ckpts"
    folder.mkdir(parents=True)
    for path in (run / "ema").iterdir():
        step = int(path.name.split(".")[1])
        content = {f"ema_model.{name}": value for name, value in read_state(path).items()}
        torch.save(content | {"_extra_state": {"initted": True, "step": step}}, folder / f"{path.stem}.pt")
    assert script.main([str(folder.parent)]) == 0
    assert "--variant" in capsys.readouterr().err
    output = ["--output", str(run / "x.safetensors")]
    assert script.main([str(folder), "--variant", "small_16k", *output]) == 2
    assert "another size" in capsys.readouterr().err
    assert not (run / "x.safetensors").exists()
    assert script.main([str(folder), "--variant", "tiny_16k", "--correction", "exact", *output]) == 0
    assert get_variant(run / "x.safetensors").base == "tiny_16k"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sigma_rel", "0.5"], "sigma_rel"),
        (["--step", "9"], "no snapshot"),
        (["--output", "x.pth"], "must end in .safetensors"),
    ],
)
def test_bad_arguments(script, run, capsys, arguments, says):
    before = sorted(run.rglob("*"))
    assert script.main([str(run), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_no_snapshots(script, tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 2
    assert script.main([str(tmp_path / "nowhere")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "no snapshots" in errors[0]
    assert "no such folder" in errors[1]
