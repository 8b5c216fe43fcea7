"""The ComfyUI nodes, loaded and called as ComfyUI does it."""

import importlib.util
import sys
import types
from itertools import product
from math import ceil
from pathlib import Path

import pytest
import torch

from mmaudio.media import read_video
from mmaudio.media.pictures import picture_frames
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

PACK = Path(__file__).parent.parent / "integrations" / "comfyui"


class Interrupted(Exception):
    pass


@pytest.fixture
def comfy(monkeypatch, tmp_path):
    """As much of ComfyUI as the nodes ask for: where models are, the device, the bar, and whether to stop."""
    state = types.SimpleNamespace(bar=[], stop=False)

    class ProgressBar:
        def __init__(self, total):
            state.bar.append((0, total))

        def update_absolute(self, value, total=None):
            state.bar.append((value, total))

    def throw_exception_if_processing_interrupted():
        if state.stop:
            raise Interrupted

    for name, contents in (
        ("comfy", {}),
        ("comfy.utils", {"ProgressBar": ProgressBar}),
        (
            "comfy.model_management",
            {
                "get_torch_device": lambda: torch.device("cpu"),
                "throw_exception_if_processing_interrupted": throw_exception_if_processing_interrupted,
            },
        ),
        ("folder_paths", {"models_dir": str(tmp_path / "models")}),
    ):
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return state


@pytest.fixture(scope="module")
def nodes():
    """What `load_custom_node` does with a folder in custom_nodes."""
    name = "custom_nodes.mmaudio"
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    return module.NODE_CLASS_MAPPINGS


def run(nodes, name, **given):
    """One node as the executor runs it: checked against its INPUT_TYPES, defaults filled in, in inference mode."""
    node, inputs = nodes[name], nodes[name].INPUT_TYPES()
    declared = inputs["required"] | inputs.get("optional", {})
    assert given.keys() <= declared.keys()
    values = {key: options["default"] for key, (_, *more) in inputs["required"].items() for options in more} | given
    assert values.keys() >= inputs["required"].keys()
    for key, (kind, *more) in declared.items():
        if key in values and kind in ("INT", "FLOAT"):
            assert more[0]["min"] <= values[key] <= more[0]["max"]
        elif key in values and isinstance(kind, list):
            assert values[key] in kind
    with torch.inference_mode():
        results = getattr(node(), node.FUNCTION)(**values)
    assert len(results) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return results[0]


def test_images_picture_and_words(nodes, comfy, tmp_path):
    model = run(nodes, "MMAudioLoader", variant="tiny_16k")
    assert model.weights_dir == tmp_path / "models" / "mmaudio"
    assert model.device == torch.device("cpu")

    clip = render_clip(2_000_000, size=64, duration=1.5, fps=24, audio=False)
    images = torch.from_numpy(clip.video).float() / 255  # (36, 64, 64, 3)
    audio = run(nodes, "MMAudioGenerate", model=model, prompt="wood", steps=2, takes=2, images=images, frame_rate=24.0)
    assert audio["waveform"].shape == (2, 1, 24_000)
    assert audio["waveform"].dtype == torch.float32
    assert audio["sample_rate"] == 16_000
    assert audio["waveform"].abs().amax(2).min() > 1e-4
    assert comfy.bar[0] == (0, 2)
    assert comfy.bar[-1] == (2, 2)

    frames = picture_frames(torch.from_numpy(clip.video).permute(0, 3, 1, 2), 24, rule=model.variant.frame_rule)
    with torch.inference_mode():
        direct = model(frames, "wood", num_steps=2, num_samples=2)
    assert torch.equal(audio["waveform"][1], direct[1].audio)

    alpha = torch.cat([images[:1], torch.zeros_like(images[:1, ..., :1])], dim=3)  # one picture, RGBA
    still = run(nodes, "MMAudioGenerate", model=model, steps=1, images=alpha, duration=1.0)
    words = run(nodes, "MMAudioGenerate", model=model, steps=1, prompt="rain", duration=1.0)
    assert still["waveform"].shape == words["waveform"].shape == (1, 1, 16_000)
    assert not torch.equal(still["waveform"], words["waveform"])

    comfy.stop = True
    with pytest.raises(Interrupted):
        run(nodes, "MMAudioGenerate", model=model, prompt="rain", duration=1.0)


def test_auto_takes_what_is_installed_without_comfyui(nodes, monkeypatch, tmp_path):
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model = run(nodes, "MMAudioLoader", precision="float32")
    assert model.variant.name == "tiny_16k"
    assert model.weights_dir is None
    assert model.dtype == torch.float32


@pytest.mark.parametrize("fps", [12, 24, 30])
def test_pictures_are_picked_like_the_frames_of_a_file(fps, tmp_path):
    clip = render_clip(2_000_000, size=16, duration=1.5, fps=fps, audio=False)
    write_mp4(tmp_path / "clip.mp4", clip)
    pictures = torch.from_numpy(clip.video).permute(0, 3, 1, 2)
    for rule, duration in product(("first", "nearest"), (None, 1.0)):
        file = read_video(tmp_path / "clip.mp4", rule=rule)
        frames = picture_frames(pictures, fps, duration, rule=rule)
        assert frames.duration == (duration or 1.5)
        for mine, theirs, rate in ((frames.clip_index, file.clip_index, 8), (frames.sync_index, file.sync_index, 25)):
            common = min(len(mine), len(theirs))
            assert len(mine) == int(rate * frames.duration) <= common + 1
            assert mine[:common] == theirs[:common]
            # Where a file ends with the slots of its last frame, pictures fill all of their time.
            assert all(mine[n] == min(ceil(n * fps / rate), len(pictures) - 1) for n in range(common, len(mine)))
        assert torch.equal(frames.clip, pictures[list(frames.clip_index)])
        assert torch.equal(frames.sync, pictures[list(frames.sync_index)])


def test_slow_pictures_are_held():
    frames = picture_frames(torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2), 1.0, rule="nearest")
    assert frames.clip[:, 0, 0, 0].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert len(frames.sync) == 75


@pytest.mark.parametrize(("fps", "duration"), [(0, None), (float("nan"), None), (25, 0), (25, float("inf"))])
def test_rates_and_durations_that_are_none(fps, duration):
    with pytest.raises(ValueError, match="positive"):
        picture_frames(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), fps, duration)
