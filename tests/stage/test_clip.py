"""One seed, one clip: what is drawn, heard and written down must be the same happenings."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from mmaudio.evaluation.onsets import Matches, detect_onsets, match_onsets
from mmaudio.stage import FAMILIES, make_scene, render_clip
from mmaudio.stage.canvas import Canvas, View
from mmaudio.stage.materials import STICK_HEAD_RADIUS, TABLE
from mmaudio.stage.scene import Light, Look, generator

DIGEST = """
import hashlib, json
from mmaudio.stage import render_clip
clip = render_clip(17, duration=2, size=32, fps=10)
facts = json.dumps([clip.caption, clip.negative, clip.family, [vars(event) for event in clip.events]]).encode()
print(hashlib.sha256(clip.video.tobytes() + clip.audio.tobytes() + facts).hexdigest())
"""
LIGHT = Light(np.array([0, -0.8, 0.6], np.float32), np.ones(3, np.float32))


def test_same_seed_same_clip_in_any_process():
    env = os.environ | {"PYTHONHASHSEED": "1"}
    there = subprocess.run([sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True, check=True).stdout
    clip = render_clip(17, duration=2, size=32, fps=10)
    facts = json.dumps([clip.caption, clip.negative, clip.family, [vars(event) for event in clip.events]]).encode()
    here = hashlib.sha256(clip.video.tobytes() + clip.audio.tobytes() + facts).hexdigest()
    assert there.strip() == here
    other = render_clip(18, duration=2, size=32, fps=10)
    assert not np.array_equal(other.video, clip.video)
    assert not np.array_equal(other.audio, clip.audio)


def test_shapes_and_types():
    clip = render_clip(3, duration=2, fps=12.5, size=(36, 64), sample_rate=44100)
    assert clip.video.shape == (25, 36, 64, 3)
    assert clip.video.dtype == np.uint8
    assert clip.audio.shape == (88200,)
    assert clip.audio.dtype == np.float32
    neither = render_clip(3, duration=2, size=32, video=False, audio=False)
    assert neither.video.shape == (0, 32, 32, 3)
    assert neither.audio.shape == (0,)
    assert neither.stems == {}


def test_scene_and_words_do_not_depend_on_how_they_are_rendered():
    one = render_clip(11, duration=2, fps=10, size=32, sample_rate=16000)
    two = render_clip(11, duration=2, fps=25, size=(40, 60), sample_rate=44100, video=False)
    assert (one.events, one.captions, one.caption, one.negative) == (
        two.events,
        two.captions,
        two.caption,
        two.negative,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_rendered(family):
    clip = render_clip(5, duration=3, fps=8, size=32, family=family)
    assert clip.family == family
    assert set(clip.kinds) <= set(FAMILIES[family].kinds)
    assert clip.events
    assert all(stem.shape == clip.audio.shape for stem in clip.stems.values())
    assert list(clip.stems)[-1] == "room"
    assert np.isfinite(clip.audio).all()
    assert 0.01 < np.abs(clip.audio).max() <= 0.951
    assert np.abs(sum(clip.stems.values()) - clip.audio).max() < 1e-5
    assert clip.video.std() > 2
    assert (clip.video[1:] != clip.video[:-1]).any()


@pytest.mark.parametrize(
    "options", [{"hard": True}, {"material": "stone"}, {"material": "glass", "hard": True}], ids=str
)
def test_every_option_is_rendered(options):
    clip = render_clip(5, duration=2, fps=8, size=32, **options)
    assert np.isfinite(clip.audio).all()
    assert len(clip.video) == 16


@pytest.mark.parametrize("family", ["drop", "strike", "rain"])
def test_sample_rates_sound_alike(family):
    """The loudness contour of a clip is that of the scene, not of the sample rate."""

    def contour(rate):
        audio = render_clip(5, duration=4, video=False, sample_rate=rate, family=family).audio
        return np.sqrt((audio.reshape(40, -1) ** 2).mean(1))

    low, high = contour(16000), contour(44100)
    assert np.abs(low - high).mean() < 0.35 * low.mean()


def test_silence_is_quiet_and_two_acts_are_both_heard():
    scenes = {seed: make_scene(seed, 3.0) for seed in range(300)}
    silent = next(seed for seed, scene in scenes.items() if not scene.acts)
    clip = render_clip(silent, duration=3, video=False)
    assert (clip.family, clip.events, clip.kinds) == ("silence", (), ())
    assert np.abs(clip.audio).max() < 0.03
    two = next(seed for seed, scene in scenes.items() if len(scene.acts) == 2)
    clip = render_clip(two, duration=3, video=False)
    assert len(clip.stems) > 2
    assert all(np.abs(stem).max() > 1e-3 for name, stem in clip.stems.items() if name != "room")


def test_what_is_out_of_sight_is_heard_but_not_drawn():
    seed = next(seed for seed in range(300) if make_scene(seed, 3.0).unseen)
    clip = render_clip(seed, duration=3, video=False)
    hidden = [event for event in clip.events if not event.seen]
    assert hidden
    assert {event.kind for event in hidden} <= set(clip.kinds)
    assert not any(act.things for act in clip.scene.unseen)
    assert len(clip.stems) == 1 + sum(len(act.sources) for act in clip.scene.acts + clip.scene.unseen)


# ---- things that fall


def falls(seed):
    return make_scene(seed, 4.0, family="drop")


def test_no_bounce_makes_energy():
    bounces = 0
    for seed in range(20):
        scene = falls(seed)
        for body in scene.acts[0].things:
            for one, two in pairwise(body.path):
                if one.gravity and two.gravity and two.height0 == 0:
                    before, after = (0.5 * s.speed**2 + s.gravity * s.height0 for s in (one, two))
                    assert after < 0.9 * before
                    bounces += 1
    assert bounces > 50


def test_an_object_touches_the_floor_when_it_bounces_and_not_between():
    for seed in range(20):
        scene = falls(seed)
        for body in scene.acts[0].things:
            times = [time for time, _ in body.impacts]
            for time in times:
                assert body.pose(time).bottom == pytest.approx(body.ground, abs=1e-6)
            for one, two in pairwise(times):
                assert two - one > 0.45 or body.pose((one + two) / 2).bottom < body.ground - 1e-3


def lowest_rows(thing, times, unit=160):
    """The lowest picture row that a thing covers at each time."""
    painter = thing.painter(Look(np.random.default_rng(0), LIGHT, unit, 0.6))
    rows = []
    for time in times:
        canvas = Canvas(np.zeros((unit, unit, 3), np.float32), View(unit, 0.0, 0.0))
        painter.draw(canvas, time)
        rows.append(np.flatnonzero(canvas.image.max((1, 2)) > 0.02).max())
    return np.array(rows)


def test_a_falling_object_is_lowest_in_the_frame_of_its_contact():
    fps = 25
    for seed in range(4):
        body = next(thing for thing in falls(seed).acts[0].things if thing.impacts)
        time = body.impacts[0][0]
        frames = np.arange(round(time * fps) - 4, round(time * fps) + 2)
        rows = lowest_rows(body, frames / fps)
        assert abs(frames[rows.argmax()] - time * fps) <= 1
        assert rows.max() / 160 == pytest.approx(body.ground, abs=0.05)


def test_a_striking_stick_is_lowest_in_the_frame_of_its_contact():
    fps = 25
    for seed in range(4):
        stick = make_scene(seed, 4.0, family="strike").acts[0].things[-1]
        time = stick.strikes[0].time
        frames = np.arange(round(time * fps) - 4, round(time * fps) + 5)
        rows = lowest_rows(stick, frames / fps)
        assert abs(frames[rows.argmax()] - time * fps) <= 1


def test_the_picture_changes_where_and_when_the_object_falls():
    """Between the frame of the first contact and one before it, most of the change is at and above its place."""
    near = 0
    for seed in range(4):
        event = make_scene(seed, 3.0, family="drop").events[0]
        video = render_clip(seed, duration=3.0, size=64, audio=False, family="drop").video.astype(float)
        k = round(event.time * 25)
        change = np.abs(video[k] - video[max(k - 3, 0)]).sum(-1)
        rows, columns = np.nonzero(change > 0.5 * change.max())
        near += abs(np.median(columns) / 64 - event.x) < 0.2 and np.median(rows) / 64 < event.y + 0.1
    assert near >= 3  # the camera moves, too


# ---- the stick


def test_the_stick_touches_the_object_when_it_strikes_and_not_between():
    feints = 0
    for seed in range(20):
        *bodies, stick = make_scene(seed, family="strike").acts[0].things
        for strike in stick.strikes:
            x, y, _, _ = stick.pose(strike.time - 1e-9)
            assert (x, y) == pytest.approx((strike.x, strike.y), abs=1e-4)
            gap = bodies[strike.target].top - (y + STICK_HEAD_RADIUS)
            feints += strike.feint
            assert gap > 0.1 if strike.feint else abs(gap) < 1e-4
            assert stick.pose(strike.time - 0.06)[1] < y - 0.02
    assert feints > 0


# ---- the sound


@pytest.mark.parametrize("family", ["drop", "strike"])
def test_sound_begins_with_its_event(family):
    for seed in range(6):
        for rate in (16000, 44100):
            clip = render_clip(seed, duration=3, video=False, family=family, sample_rate=rate)
            for name, stem in list(clip.stems.items())[:-1]:
                source = next(s for s in clip.scene.acts[0].sources if s.name == name)
                first = np.flatnonzero(np.abs(stem) > 0.02 * np.abs(stem).max())[0] / rate
                assert 0 <= first - source.hits[0][0] + 1 / rate < 0.005


@pytest.mark.parametrize(
    "family",
    ["drop", "strike", "collide", "footsteps", "shatter", "drip", "tick", "typing", "fireworks", "bell"],
)
def test_sound_rises_within_5_ms_of_separate_impacts(family):
    """Of all that come 100 ms after another; the ring of an earlier one may cover one of them."""
    rises = []
    for seed in range(8):
        act, rate, length = make_scene(seed, 6.0, family).acts[0], 16000, 6 * 16000
        sound = sum(source.render(rate, length, np.random.default_rng(0)) for source in act.sources)
        slope = np.abs(np.diff(sound, prepend=0))
        before = -1.0
        for event in sorted(act.events, key=lambda event: event.time):
            if event.seconds == 0 and event.time - before >= 0.1:
                at = round(event.time * rate)
                rises.append(slope[at : at + 80].max() > 2 * slope[max(0, at - 320) : at].max(initial=0))
            before = event.time
    assert len(rises) > 10
    assert rises.count(False) <= 1


@pytest.mark.parametrize("family", ["drop", "strike", "collide", "footsteps", "shatter"])
def test_every_contact_is_heard(family):
    """Energy rises within 20 ms of each event and nowhere else."""
    clips = [render_clip(seed, video=False, family=family) for seed in range(4)]
    heard = [match_onsets(detect_onsets(c.audio, 16000), np.array([e.time for e in c.events]), 0.02) for c in clips]
    assert sum(heard, Matches()).f1 > 0.93


def test_louder_events_sound_louder():
    loud, peak = [], []
    for seed in range(6):
        clip = render_clip(seed, video=False, family="strike")
        for event in clip.events:
            first = int(event.time * 16000)
            loud.append(event.loudness)
            peak.append(np.abs(clip.audio[first : first + 800]).max())
    assert np.corrcoef(loud, peak)[0, 1] > 0.8


def test_materials_ring_for_different_times():
    assert TABLE["rubber"].t60 < TABLE["wood"].t60 < TABLE["glass"].t60 < TABLE["metal"].t60 < TABLE["bronze"].t60


# ---- requests


def test_streams_of_different_purposes_differ():
    assert generator(1, "scene").random() != generator(1, "look").random()


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
    ids=str,
)
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must"):
        render_clip(**{"seed": 1, **wrong})
