"""Good, bad and malicious files: reading, strict loading, writing, converting."""

import errno
import json
import os
import pickle
import re
import zipfile

import pytest
import torch
from fileserver import message
from safetensors import SafetensorError

from mmaudio import weights
from mmaudio.weights import WeightError

# ---- reading

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(3)}


def same(got, expected):
    assert got.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=0, atol=0)
        assert got[key].dtype == expected[key].dtype


class Evil:
    """Unpickling this would create the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("container", [None, "generator", "state_dict", "weights"])
@pytest.mark.parametrize("zipped", [True, False])
def test_read_torch_files(tmp_path, container, zipped):
    path = tmp_path / "x.pth"
    torch.save({container: STATE} if container else STATE, path, _use_new_zipfile_serialization=zipped)
    same(weights.read_state(path), STATE)


def test_read_training_checkpoint(tmp_path):
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4]),
    ]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, [2])
    whole = {"it": 7, "weights": net.state_dict(), "optimizer": optimizer.state_dict(), "ema": None}
    torch.save(whole | {"scheduler": scheduler.state_dict()}, tmp_path / "ckpt.pth")
    same(weights.read_state(tmp_path / "ckpt.pth"), dict(net.state_dict()))


def test_read_bare_tensor(tmp_path):
    torch.save(torch.ones(1, 77, 4), tmp_path / "empty_string.pth")
    same(weights.read_state(tmp_path / "empty_string.pth"), {weights.BARE_TENSOR: torch.ones(1, 77, 4)})


def test_content_decides_not_the_suffix(tmp_path):
    weights.save_safetensors(tmp_path / "x.pth", STATE)
    same(weights.read_state(tmp_path / "x.pth"), STATE)


def bad_files(tmp_path):
    torch.save(STATE, tmp_path / "good.pth")
    weights.save_safetensors(tmp_path / "good.safetensors", STATE)
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    good, flat, old = ((tmp_path / n).read_bytes() for n in ("good.pth", "good.safetensors", "old.pth"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save({"a": torch.ones(1), "lr": 0.1}, tmp_path / "values.pth")
    torch.save({"state_dict": {}}, tmp_path / "none.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    contents = {
        "empty": (b"", "0 bytes"),
        "text": (b"hello world, this is no weight file", "text"),
        "page": (b"\n<!DOCTYPE html><html>Not found</html>", "web page"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "binary": (b"\x00\x01" * 50, "not a weight file"),
        "short zip": (good[: len(good) // 2], "truncated"),
        "short safetensors": (flat[:-4], "truncated"),
        "shorter safetensors": (flat[:20], "truncated"),
        "short old": (old[:-8], "truncated"),
        "shorter old": (old[: len(old) // 2], "truncated"),
        "pickle": (pickle.dumps({"a": 1}), "truncated"),
        "photos": ((tmp_path / "photos.zip").read_bytes(), "damaged"),
        "values": ((tmp_path / "values.pth").read_bytes(), "lr: float"),
        "none": ((tmp_path / "none.pth").read_bytes(), "non-empty"),
        "list": ((tmp_path / "list.pth").read_bytes(), "got list"),
    }
    for kind, (content, expected) in contents.items():
        path = tmp_path / f"{kind}.bin"
        path.write_bytes(content)
        yield path, expected


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bad_files_are_one_clear_line(tmp_path):
    for path, expected in bad_files(tmp_path):
        with pytest.raises(WeightError, match=expected) as error:
            weights.read_state(path)
        assert str(path) in message(error)
    with pytest.raises(WeightError, match="No such file"):
        weights.read_state(tmp_path / "nothing.pth")
    with pytest.raises(WeightError, match="cannot read"):
        weights.read_state(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "old", "plain pickle", "inside"])
def test_malicious_pickle_is_never_executed(tmp_path, how):
    trap, path = tmp_path / "executed", tmp_path / "evil.pth"
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(Evil(trap)))
    else:
        content = STATE | {"x": Evil(trap)} if how == "inside" else Evil(trap)
        torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    with pytest.raises(WeightError, match=r"evil\.pth") as error:
        weights.read_state(path)
    assert "weights_only" not in message(error)  # torch's advice to switch the protection off
    if how != "plain pickle":
        assert re.search(r"unsafe, it asks for (posix|nt)\.system", message(error))
    assert not trap.exists()
    with pytest.raises(WeightError):
        weights.convert(path, tmp_path / "out.safetensors")
    assert not trap.exists()
    torch.load(path, weights_only=False) if how != "plain pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap would have worked


# ---- loading


class Net(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.a = torch.nn.Linear(3, width)
        self.frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer("n", torch.tensor(0))


NET_STATE = STATE | {"frozen": torch.full((1,), 5.0)}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_load_strict(device, dtype):
    with torch.device(device):
        net = Net()
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in NET_STATE.items()}
    before = {key: tensor.clone() for key, tensor in state.items()}
    weights.load_strict(net, state | {"latent_rot": torch.ones(3)}, source="x.pth", drop=["latent_rot", "clip_rot"])
    same(dict(net.state_dict()), NET_STATE)
    assert net.a.weight.requires_grad
    assert not net.frozen.requires_grad
    same(state, before)


def test_load_strict_dtype_applies_on_meta_only():
    with torch.device("meta"):
        net = Net()
    weights.load_strict(net, NET_STATE, source="x", dtype=torch.bfloat16)
    assert net.a.weight.dtype == torch.bfloat16
    assert net.n.dtype == torch.int64
    weights.load_strict(net := Net().half(), NET_STATE, source="x", dtype=torch.bfloat16)
    assert net.a.weight.dtype == torch.float16


def test_load_strict_takes_mapped_tensors_and_can_train_them(tmp_path):
    """Training must not write through the memory map into the file."""
    weights.save_safetensors(tmp_path / "x.safetensors", NET_STATE)
    torch.save(NET_STATE, tmp_path / "x.pth")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pth"):
        with torch.device("meta"):
            net = Net()
        weights.load_strict(net, weights.read_state(path), source=path)
        with torch.no_grad():
            net.a.weight.add_(1)
        same(weights.read_state(path), NET_STATE)


def test_load_strict_says_what_does_not_fit():
    with pytest.raises(WeightError, match=r"1 keys missing \(frozen\)") as error:
        weights.load_strict(Net(), STATE, source="some/file.pth")
    assert "some/file.pth" in message(error)
    with pytest.raises(WeightError, match=r"5 keys unexpected \(x0, x1, x2, \.\.\. 2 more\)"):
        weights.load_strict(Net(), NET_STATE | {f"x{i}": torch.ones(1) for i in range(5)}, source="x")
    with pytest.raises(WeightError, match=r"a\.weight: got \(2, 3\), expected \(4, 3\).*another size"):
        weights.load_strict(Net(width=4), NET_STATE, source="x")
    with pytest.raises(WeightError, match="another kind of model"):
        weights.load_strict(Net(), {"q": torch.ones(1)}, source="x")
    net = Net()
    with pytest.raises(WeightError):
        weights.load_strict(net, NET_STATE | {"frozen": torch.ones(2)}, source="x")
    assert not torch.equal(net.a.bias, STATE["a.bias"])  # nothing is loaded when something does not fit


def test_load_strict_rename_picks_a_part():
    whole = {f"vfeat.{key}": tensor for key, tensor in NET_STATE.items()} | {"afeat.x": torch.ones(1)}
    net = Net()
    weights.load_strict(
        net, whole, source="x", rename=lambda key: key.removeprefix("vfeat.") if key.startswith("vfeat.") else None
    )
    same(dict(net.state_dict()), NET_STATE)


def test_normalise_weight_norm():
    new = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 3, 3))
    net = torch.nn.ModuleDict({"ups": new})
    state, style = weights.normalise_weight_norm(net.state_dict())
    assert style == "weight_norm"
    assert set(state) == {"ups.bias", "ups.weight_g", "ups.weight_v"}
    assert torch.equal(state["ups.weight_g"], net.state_dict()["ups.parametrizations.weight.original0"])
    again, style = weights.normalise_weight_norm(state)
    assert style == "weight_norm"
    same(again, state)
    old = torch.nn.ModuleDict({"ups": torch.nn.Conv1d(2, 3, 3)})
    assert weights.normalise_weight_norm(old.state_dict())[1] == "folded"


# ---- writing


def test_safetensors_round_trip(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    state = STATE | {"s1": shared, "s2": shared, "view": shared[1:], "turned": shared.t(), "none": torch.empty(0)}
    path = tmp_path / "new" / "x.safetensors"
    weights.save_safetensors(path, state, {"variant": "tiny"})
    same(weights.read_state(path), state)
    assert weights.read_metadata(path) == {"variant": "tiny"}
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    weights.save_safetensors(path, STATE)
    assert weights.read_metadata(path) == {}


def test_convert(tmp_path):
    torch.save({"generator": STATE}, tmp_path / "x.pt")
    assert weights.read_metadata(tmp_path / "x.pt") == {}
    half = tmp_path / "half.safetensors"
    weights.convert(tmp_path / "x.pt", half, {"note": "n"}, config={"width": 2}, dtype=torch.float16)
    assert weights.read_state(half)["a.weight"].dtype == torch.float16
    assert weights.read_state(half)["n"].dtype == torch.int64
    weights.convert(half, tmp_path / "again.safetensors")
    metadata = weights.read_metadata(tmp_path / "again.safetensors")
    assert json.loads(metadata[weights.CONFIG_KEY]) == {"width": 2}
    assert metadata["note"] == "n"
    assert metadata["source"] == "x.pt"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("No space left")])
def test_disk_full_while_saving_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "x.safetensors"
    weights.save_safetensors(path, STATE)

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WeightError, match="No space left"):
        weights.save_safetensors(path, NET_STATE)
    monkeypatch.undo()
    assert list(tmp_path.glob(".*.tmp")) == []
    same(weights.read_state(path), STATE)


def test_read_metadata_of_damaged_file(tmp_path):
    weights.save_safetensors(tmp_path / "x.safetensors", STATE)
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-1])
    with pytest.raises(WeightError, match="damaged"):
        weights.read_metadata(tmp_path / "x.safetensors")


# ---- fingerprints


def test_fingerprint_is_of_the_content(tmp_path):
    state = STATE | {"half": torch.ones(5).half(), "empty": torch.zeros(0, 2)}
    torch.save(state, tmp_path / "a.pth")
    torch.save({"state_dict": dict(reversed(state.items()))}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    weights.convert(tmp_path / "a.pth", tmp_path / "c.safetensors", {"note": "x"})
    prints = {weights.fingerprint(tmp_path / name) for name in ("a.pth", "b.pth", "c.safetensors")}
    assert len(prints) == 1
    assert re.fullmatch("[0-9a-f]{32}", prints.pop())


@pytest.mark.parametrize(
    "changes",
    [
        {"a.bias": torch.tensor([1.0, 1.0001])},  # a value
        {"a.weight": torch.arange(6.0).reshape(3, 2)},  # a shape
        {"b": torch.ones(1)},  # a key more
        {"n": torch.tensor(4)},
    ],
)
def test_fingerprint_tells_files_apart(tmp_path, changes):
    for name, state in (("a", STATE), ("b", STATE | changes)):
        weights.save_safetensors(tmp_path / f"{name}.safetensors", state)
    assert weights.fingerprint(tmp_path / "a.safetensors") != weights.fingerprint(tmp_path / "b.safetensors")
