"""Collisions, rolling and scraping, footsteps, breaking: one physics for what is seen, heard and said."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mmaudio.stage import FAMILIES, make_scene
from mmaudio.stage.canvas import Canvas, View
from mmaudio.stage.families import collide, footsteps, roll, shatter
from mmaudio.stage.materials import SURFACES, TABLE
from mmaudio.stage.motion import Slide
from mmaudio.stage.phrases import KIND_WORDS
from mmaudio.stage.scene import END_MARGIN, MIN_GAP, Light, Look, Setting, generator

MINE = ("collide", "roll", "footsteps", "shatter")
SEEDS = range(12)


def acts(family, duration=8.0, seeds=SEEDS):
    return [make_scene(seed, duration, family).acts[0] for seed in seeds]


def heard(act, sample_rate=16000, seconds=8.0):
    length = round(seconds * sample_rate)
    return sum(source.render(sample_rate, length, generator(1, "source", 0)) for source in act.sources)


def draw(act, time, size=64):
    light = Light(np.array([0.3, -0.7, 0.6], np.float32), np.ones(3, np.float32))
    canvas = Canvas(np.full((size, size, 3), 0.4, np.float32), View(size, 0.0, 0.0))
    things = sorted(act.things, key=lambda thing: thing.depth)
    painters = [thing.painter(Look(generator(1, "thing", i), light, size, 0.5)) for i, thing in enumerate(things)]
    for painter in painters:
        painter.shadow(canvas, time)
    for painter in painters:
        painter.draw(canvas, time)
    return canvas.image


@pytest.mark.parametrize("family", MINE)
@pytest.mark.parametrize(("duration", "left", "right"), [(1.0, 0.0, 1.0), (4.0, 0.5, 1.0), (30.0, 0.0, 0.5)])
def test_events_are_in_their_place_and_time(family, duration, left, right):
    if FAMILIES[family].space == "whole":
        left, right = 0.0, 1.0
    setting = Setting(duration, "room", "stone", 0.55, 5.0, left, right)
    made = [FAMILIES[family].make(np.random.default_rng(seed), setting) for seed in range(10)]
    assert sum(bool(act.events) for act in made) >= (8 if duration > 1 else 1)
    for act in made:
        for event in act.events:
            assert 0 < event.time < duration - END_MARGIN
            assert left <= event.x <= right
            assert setting.horizon < event.y <= 1
            assert 0.1 < event.loudness <= 1
            assert event.kind in FAMILIES[family].kinds
            assert event.time + event.seconds <= duration + 1e-9
        for one, two in pairwise(act.events):
            assert two.time - one.time >= max(MIN_GAP, one.seconds) - 1e-9


@pytest.mark.parametrize("family", ["collide", "footsteps", "shatter"])
def test_the_first_sound_begins_with_the_first_contact(family):
    for act in acts(family, 4.0):
        for rate in (16000, 44100):
            sound = heard(act, rate, 4.0)
            assert np.isfinite(sound).all()
            assert 0.05 < np.abs(sound).max() < 1.9
            first = np.argmax(np.abs(sound) > 0.03 * np.abs(sound).max()) / rate
            assert -1e-4 <= first - act.events[0].time < 0.005


@pytest.mark.parametrize("family", MINE)
def test_every_caption_names_the_kind_and_the_material_and_nothing_else(family):
    for act in acts(family):
        kinds = {event.kind for event in act.events}
        names = {TABLE[event.material].adjective if event.material in TABLE else event.material for event in act.events}
        for caption in (*act.words.tags, *act.words.clauses, *act.words.details):
            words = set(caption.replace(",", "").split())
            for kind, of_kind in KIND_WORDS.items():
                assert bool(words & set(of_kind)) == (kind in kinds), (kind, caption)
            assert names <= words


def test_stone_and_a_low_sample_rate_are_possible():
    for family in ("collide", "roll"):
        act = make_scene(2, 3.0, family, material="stone").acts[0]
        assert {event.material for event in act.events} == {"stone"}
        sound = heard(act, 8000, 3.0)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() > 0.02


# ---- collisions


def speeds(bodies, times):
    """Exact speeds (T, B) of what is not pushed."""
    rows = []
    for time in times:
        pieces = [max((p for p in body.path if p.start <= time), key=lambda p: p.start) for body in bodies]
        rows.append([piece.speed_at(time) if isinstance(piece, Slide) else 0.0 for piece in pieces])
    return np.array(rows)


def test_collisions_keep_momentum_and_only_the_hand_adds_energy():
    for act in acts("collide"):
        *bodies, hand = act.things
        masses = np.array([body.size**2 * body.aspect for body in bodies])
        times = np.arange(0, 8, 0.02)
        energy = 0.5 * speeds(bodies, times) ** 2 @ masses
        gained = times[1:][np.diff(energy) > 1e-12]
        assert len(gained) <= len(hand.touches)
        assert all(any(touch.end <= time < touch.end + 0.021 for touch in hand.touches) for time in gained)
        for event in act.events:
            before, after = (v * masses for v in speeds(bodies, (event.time - 1e-6, event.time + 1e-9)))
            changed = np.abs(after - before) > 1e-5
            if changed.sum() == 2:  # not the cushions, which stand on the floor
                assert (after - before).sum() == pytest.approx(0, abs=1e-6)
            else:
                assert changed.sum() == 1


def test_bodies_touch_when_they_collide_and_never_overlap():
    for act in acts("collide"):
        bodies = act.things[:-1]
        apart = np.array([collide._apart(one, two) for one, two in pairwise(bodies)])

        def gaps(time, bodies=bodies, apart=apart):
            return np.diff([body.pose(time).x for body in bodies]) - apart

        assert min(gaps(time).min() for time in np.arange(0, 8, 0.03)) > -1e-6
        assert all(np.abs(gaps(event.time)).min() < 1e-6 for event in act.events)


def test_a_collision_is_seen_as_a_change_of_movement():
    for act in acts("collide"):
        bodies = act.things[:-1]
        for event in act.events:
            change = np.diff(speeds(bodies, (event.time - 0.041, event.time + 0.001)), axis=0)
            assert np.abs(change).max() > 0.05


def test_only_loud_collisions_are_elastic():
    run = collide.Run(np.array([0.3, 0.4]), np.array([1.0, 0.0]), np.ones(2), np.array([0.1]), 0.3, 0.8, 1.0)
    slow = replace(run, speed=np.array([0.02, 0.0]))
    run.collide(0)
    assert np.allclose(run.speed, [0.1, 0.9])
    slow.collide(0)
    assert np.allclose(slow.speed, [0.01, 0.01])


# ---- rolling and scraping


def test_rolling_and_scraping_sound_as_fast_as_they_are():
    seen = set()
    for act in acts("roll", seeds=range(6)):
        body, sound = act.sources[0].body, heard(act)
        times = np.arange(400) * 0.02
        speed = np.abs([body.pose(t + 0.02).x - body.pose(t).x for t in times]) / 0.02
        level = np.sqrt((sound.reshape(400, 320) ** 2).mean(1))
        assert level[speed < 1e-9].max(initial=0.0) < 0.02
        smooth = np.convolve(level, np.ones(9) / 9, "same")
        assert np.corrcoef(smooth, speed)[0, 1] > 0.8
        starts = [event.time for event in act.events]
        assert all(body.pose(time).x == pytest.approx(body.pose(time - 0.05).x) for time in starts)
        assert all(body.pose(time + 0.2).x != pytest.approx(body.pose(time).x, abs=1e-3) for time in starts)
        seen |= {event.kind for event in act.events}
    assert seen == {"roll", "scrape"}


def test_what_rolls_only_slows_down_when_it_is_let_go():
    for act in acts("roll"):
        if act.events[0].kind != "roll":
            continue
        body, hand = act.sources[0].body, act.things[-1]
        for event, touch in zip(act.events, [t for t in hand.touches if _moves(body, t)], strict=True):
            after = np.arange(touch.end, event.time + event.seconds, 0.02)
            assert np.diff(np.abs(speeds([body], after)[:, 0])).max(initial=-1.0) < 1e-6
            pose, later = body.pose(touch.end), body.pose(touch.end + 0.3)
            assert later.angle - pose.angle == pytest.approx((later.x - pose.x) / body.size)


def _moves(body, touch):
    return abs(body.pose(touch.end).x - body.pose(touch.start).x) > 1e-6


def test_scraping_is_brighter_than_rolling():
    def centre(kind):
        of_kind = [act for act in acts("roll", seeds=range(8)) if act.events[0].kind == kind][:2]
        power = sum(np.abs(np.fft.rfft(heard(act))) ** 2 for act in of_kind)
        return np.arange(len(power)) @ power / power.sum() / 8

    assert centre("scrape") > 2.5 * centre("roll")


# ---- footsteps


def test_a_foot_comes_down_with_every_step():
    for act in acts("footsteps"):
        walker = act.things[1]
        for event in act.events:
            heights = [[walker.foot(i, event.time + dt)[1] for dt in (-0.04, 0.0, 0.01)] for i in (0, 1)]
            which = int(np.argmax([height[0] for height in heights]))
            assert heights[which][0] > 0.012  # one frame before
            assert heights[which][1:] == pytest.approx([0.0, 0.0], abs=1e-9)
            assert walker.foot(which, event.time)[0] == pytest.approx(event.x)
        assert all(walker.foot(i, t)[1] >= 0 for i in (0, 1) for t in np.arange(0, 8, 0.02))


def test_all_grounds_look_and_sound_different():
    setting = Setting(3.0, "room", "carpet", 0.55, 5.0)
    pictures, centres = {}, {}
    for ground in footsteps.GROUNDS:
        act = footsteps.make(np.random.default_rng(1), replace(setting, material=ground))
        assert {event.material for event in act.events} == {ground}
        pictures[ground] = draw(act, 0.0)[-8:].mean((0, 1))
        power = np.abs(np.fft.rfft(heard(act, seconds=3.0))) ** 2
        centres[ground] = float(np.arange(len(power)) @ power / power.sum() / 3)
    for one, two in pairwise(pictures.values()):
        assert np.abs(one - two).max() > 0.05
    assert min(centres["gravel"], centres["grass"]) > 2 * max(centres[name] for name in ("wood", "ceramic"))
    assert set(SURFACES) <= set(pictures)


# ---- breaking


def test_a_vessel_breaks_when_it_meets_the_floor_and_its_shards_have_no_more_energy_than_it_had():
    for act in acts("shatter"):
        assert 1 <= len(act.events) <= shatter.MOST
        broken = [vessel for vessel in act.things if vessel.shards]
        for vessel, event in zip(broken, act.events, strict=True):
            body = vessel.body
            fall = body.path[-1]
            assert body.pose(event.time).bottom == pytest.approx(body.ground)
            assert body.pose(event.time - 0.04).bottom < body.ground - 0.03
            impact = fall.gravity * fall.seconds
            each = []
            for shard in vessel.shards:
                start = shard.path[0]
                sideways = (start.x1 - start.x0) / start.seconds
                each.append((start.speed**2 + sideways**2) / 2 + fall.gravity * start.height0)
                landings = [speed for _, speed in shard.landings]
                assert all(two < one for one, two in pairwise([impact, *landings]))
            assert np.mean(each) < impact**2 / 2 + fall.gravity * body.size


def test_the_break_is_seen_in_its_frame():
    for act in acts("shatter", seeds=range(5)):
        event = act.events[0]
        before, after = draw(act, event.time - 0.02), draw(act, event.time + 0.02)
        rows, columns = np.nonzero(np.abs(after - before).sum(-1) > 0.2)
        assert abs(np.median(columns) / 64 - event.x) < 0.1
        assert event.y - 0.35 < np.median(rows) / 64 < event.y + 0.03


def test_the_same_seed_is_the_same_act():
    for module in (collide, roll, footsteps):
        setting = Setting(4.0, "room", "wood", 0.5, 5.0)
        one, two = (module.make(np.random.default_rng(3), setting) for _ in range(2))
        assert one.events == two.events
        assert np.array_equal(heard(one, seconds=4.0), heard(two, seconds=4.0))


def test_a_clash_sounds_the_same_at_every_sample_rate():
    """Noise, which has more samples at a higher rate, must not shift what is drawn after it."""
    for seed in range(4):
        act = make_scene(seed, 4.0, "collide", "glass").acts[0]
        low, high = (heard(act, rate, 4.0) for rate in (16000, 48000))
        spectra = [np.abs(np.fft.rfft(sound))[: len(low) // 4] for sound in (low, high)]  # to 4 kHz
        spectra = [np.convolve(spectrum, np.ones(20), "same") for spectrum in spectra]
        assert np.corrcoef(*spectra)[0, 1] > 0.95, seed


def test_bodies_meet_in_every_scene_of_collisions():
    for seed in range(40):
        act = make_scene(seed, 3.0, "collide").acts[0]
        *bodies, _ = act.things
        ends = (bodies[0].path[0].x0, bodies[-1].path[0].x0)
        inner = [event for event in act.events if min(abs(event.x - end) for end in ends) > 0.08]
        assert inner
        counted = [text for text in act.words.details if "twice" in text or "once" in text or "times" in text]
        assert counted
