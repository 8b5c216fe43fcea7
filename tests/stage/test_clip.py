"""One seed, one clip: what is drawn, heard and written down must be the same contacts."""

from itertools import pairwise

import numpy as np
import pytest

from mmaudio.evaluation.onsets import detect_onsets
from mmaudio.stage import (
    ACTION_WORDS,
    FAMILIES,
    MATERIALS,
    SPLITS,
    body_pose,
    caption,
    make_scene,
    render_clip,
    split_seeds,
    stick_pose,
)
from mmaudio.stage.materials import STICK_HEAD_RADIUS, TABLE
from mmaudio.stage.scene import END_MARGIN, MIN_GAP, generator

SEEDS = range(40)


def test_same_arguments_same_clip():
    one, two = (render_clip(7, duration=2, size=48) for _ in range(2))
    assert np.array_equal(one.video, two.video)
    assert np.array_equal(one.audio, two.audio)
    assert (one.events, one.caption, one.scene) == (two.events, two.caption, two.scene)
    assert not np.array_equal(one.audio, render_clip(8, duration=2, video=False).audio)


def test_shapes_and_types():
    clip = render_clip(3, duration=2, fps=12.5, size=(36, 64), sample_rate=44100)
    assert clip.video.shape == (25, 36, 64, 3)
    assert clip.video.dtype == np.uint8
    assert clip.audio.shape == (88200,)
    assert clip.audio.dtype == np.float32
    silent = render_clip(3, duration=2, size=32, video=False, audio=False)
    assert silent.video.shape == (0, 32, 32, 3)
    assert silent.audio.shape == (0,)


def test_scene_does_not_depend_on_how_it_is_rendered():
    one = render_clip(11, duration=2, fps=10, size=32, sample_rate=16000)
    two = render_clip(11, duration=2, fps=25, size=(40, 60), sample_rate=44100)
    assert (one.scene, one.events, one.caption) == (two.scene, two.events, two.caption)


def test_sample_rates_sound_alike():
    """The loudness contour of a clip is that of the scene, not of the sample rate."""

    def contour(rate):
        audio = render_clip(5, video=False, sample_rate=rate).audio
        return np.sqrt((audio[: 8 * rate].reshape(80, -1) ** 2).mean(1))

    assert np.corrcoef(contour(16000), contour(44100))[0, 1] > 0.95


def test_events_are_sorted_inside_and_apart():
    for seed in SEEDS:
        scene = make_scene(seed)
        times = np.array([event.time for event in scene.events])
        assert 3 <= len(times) <= 18
        assert times[0] > 0
        assert times[-1] < scene.duration - END_MARGIN
        assert np.diff(times).min() >= MIN_GAP - 1e-9
        for event in scene.events:
            assert event.material in MATERIALS
            assert event.kind == {"drop": "bounce", "strike": "strike"}[scene.family]
            assert 0 < event.loudness <= 1
            assert 0 <= event.x <= 1
            assert 0 <= event.y <= 1


def test_all_materials_and_families_occur():
    scenes = [make_scene(seed) for seed in range(120)]
    assert {scene.family for scene in scenes} == set(FAMILIES)
    for family in FAMILIES:
        assert {name for scene in scenes if scene.family == family for name in scene.materials} == set(MATERIALS)


@pytest.mark.parametrize("duration", [1.0, 1.5, 3.0, 10.0, 30.0])
def test_any_duration_has_events(duration):
    for seed in range(20):
        assert all(0 < event.time < duration for event in make_scene(seed, duration).events)


def test_an_object_touches_the_floor_when_it_bounces_and_not_between():
    for seed in SEEDS:
        scene = make_scene(seed)
        for body in scene.bodies:
            times = [event.time for event in scene.events if event.kind == "bounce" and event.material == body.material]
            for time in times:
                assert body_pose(body, time).bottom == pytest.approx(body.ground, abs=1e-6)
            for one, two in pairwise(times):
                assert two - one > 0.45 or body_pose(body, (one + two) / 2).bottom < body.ground - 1e-3


def test_the_stick_touches_the_object_when_it_strikes_and_not_between():
    feints = 0
    for seed in SEEDS:
        scene = make_scene(seed)
        if not scene.stick:
            continue
        for strike in scene.stick.strikes:
            x, y, _, _ = stick_pose(scene.stick, strike.time - 1e-9)
            assert (x, y) == pytest.approx((strike.x, strike.y), abs=1e-4)
            body = scene.bodies[strike.target]
            gap = body.ground - 2 * body.size - (y + STICK_HEAD_RADIUS)
            feints += strike.feint
            assert gap > 0.1 if strike.feint else abs(gap) < 1e-4
            earlier = stick_pose(scene.stick, strike.time - 0.06)
            assert earlier[1] < y - 0.02
    assert feints > 0


def test_a_falling_object_is_seen_at_the_floor_in_the_frame_of_its_contact():
    """Between the frame of a contact and one before it, what changes is at and above the place of the contact."""
    checked = 0
    for seed in SEEDS:
        scene = make_scene(seed, 3.0)
        if scene.family != "drop":
            continue
        event = scene.events[0]
        clip = render_clip(seed, duration=3.0, size=64, audio=False)
        k = round(event.time * clip.fps)
        change = np.abs(clip.video[k].astype(float) - clip.video[max(k - 3, 0)]).sum(-1)
        rows, columns = np.nonzero(change > 0.5 * change.max())
        assert abs(np.median(columns) / 64 - event.x) < 0.15
        assert np.median(rows) / 64 < event.y + 0.05
        checked += 1
        if checked == 6:
            break


def test_every_contact_is_heard():
    """Energy rises within 20 ms of each event, at both sample rates, and nowhere else."""
    for rate in (16000, 44100):
        hit = missed = extra = 0
        for seed in range(12):
            clip = render_clip(seed, video=False, sample_rate=rate)
            found = list(detect_onsets(clip.audio, rate))
            for event in clip.events:
                near = [time for time in found if abs(time - event.time) <= 0.02]
                hit += bool(near)
                missed += not near
                for time in near[:1]:
                    found.remove(time)
            extra += len(found)
        assert 2 * hit / (2 * hit + missed + extra) > 0.95


def test_louder_events_sound_louder():
    loud, peak = [], []
    for seed in range(12):
        clip = render_clip(seed, video=False)
        assert np.abs(clip.audio).max() <= 0.95
        assert np.abs(clip.audio).max() > 0.05
        for event in clip.events:
            first = int(event.time * 16000)
            loud.append(event.loudness)
            peak.append(np.abs(clip.audio[first : first + 800]).max())
    assert np.corrcoef(loud, peak)[0, 1] > 0.8


def test_materials_ring_for_different_times():
    assert TABLE["rubber"].t60 < TABLE["wood"].t60 < TABLE["glass"].t60 < TABLE["metal"].t60


def test_captions_name_material_and_action():
    texts = set()
    for seed in range(80):
        scene = make_scene(seed)
        for draw in range(4):
            text = caption(scene, np.random.default_rng([seed, draw]))
            texts.add(text)
            assert text == text.lower()
            assert all(TABLE[name].adjective in text for name in scene.materials)
            assert set(text.replace(",", " ").split()) & set(ACTION_WORDS[scene.family])
    assert len(texts) > 200


def test_streams_of_different_purposes_differ():
    assert generator(1, "scene").random() != generator(1, "look").random()


def test_splits_are_disjoint():
    spans = sorted(SPLITS.values())
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    assert list(split_seeds("val", 3, start=2)) == [1_000_002, 1_000_003, 1_000_004]


def test_bad_split_requests_are_refused():
    with pytest.raises(ValueError, match="unknown split"):
        split_seeds("dev", 1)
    with pytest.raises(ValueError, match="10000 clips"):
        split_seeds("test", 10_001)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"duration": float("nan")},
        {"duration": 0.2},
        {"fps": 0},
        {"fps": float("inf")},
        {"size": 0},
        {"size": (64, -3)},
        {"sample_rate": 0},
    ],
)
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must"):
        render_clip(**{"seed": 1, **wrong})
