"""The bundled model: small enough to carry, whole, and heard to follow the picture."""

from itertools import product

import numpy as np

import mmaudio
from mmaudio.evaluation.onsets import Matches, detect_onsets, match_onsets
from mmaudio.stage import render_clip, split_seeds
from mmaudio.stage.export import write_mp4
from mmaudio.variants import VARIANTS
from mmaudio.weights import BUNDLED_DIR, read_metadata

FAMILIES, CLIPS = ("strike", "drop", "footsteps", "bell"), 2  # of impacts, and clips of each


def test_files_are_few_megabytes_and_say_what_they_are():
    files = sorted(BUNDLED_DIR.glob("*.safetensors"))
    tiny = VARIANTS["tiny_16k"]
    parts = {f.name for f in tiny.files.present.values()} | {f.name for f in files if f.name == tiny.few_step.name}
    assert {f.name for f in files} == parts | {"stage_judge.safetensors"}
    assert sum(f.stat().st_size for f in files) <= 40_000_000
    for file in files:
        if file.name in parts:
            assert read_metadata(file)["variant"] == "tiny_16k"


def test_sound_is_in_time_with_the_picture(tmp_path):
    """Contacts are heard when they are seen, on held-out clips."""
    pipe = mmaudio.load("tiny_16k", device="cpu")
    heard, truth = [], []
    for seed, family in product(split_seeds("test", CLIPS, start=200), FAMILIES):
        clip = render_clip(seed, size=112, family=family)
        write_mp4(tmp_path / "clip.mp4", clip)
        generation = pipe(video=tmp_path / "clip.mp4", prompt=clip.caption, num_steps=8)[0]
        heard.append(detect_onsets(generation.audio[0].numpy(), generation.sample_rate))
        truth.append(np.array([event.time for event in clip.events if event.seconds == 0]))

    def f1(shift):
        pairs = zip(heard, truth[shift:] + truth[:shift], strict=True)
        return sum((match_onsets(h, t, 0.1) for h, t in pairs), Matches()).f1

    shuffled = np.mean([f1(shift) for shift in range(1, len(truth))])
    assert f1(0) >= 0.7
    assert f1(0) >= 2 * shuffled
