from dataclasses import replace

import numpy as np
import pytest

from mmaudio.evaluation.onsets import Matches, detect_onsets, match_onsets
from mmaudio.stage import make_scene, render_clip
from mmaudio.stage.canvas import Canvas, View
from mmaudio.stage.families import bell, engine, fan, fireworks, keyboard, thunder, tick
from mmaudio.stage.materials import TABLE
from mmaudio.stage.phrases import KIND_WORDS
from mmaudio.stage.rotation import Spin, Swing
from mmaudio.stage.scene import END_MARGIN, Light, Look
from mmaudio.stage.voices import Contacts

MACHINES = ("engine", "fan", "tick", "typing", "fireworks", "thunder", "bell")
SUDDEN = ("tick", "typing", "fireworks", "thunder", "bell")  # with an onset
RATE, FPS = 16000, 25


def acts(family, count, duration=6.0, first=0):
    return [make_scene(seed, duration, family).acts[0] for seed in range(first, first + count)]


def dry(act, duration=6.0, rate=RATE):
    sources = [source.render(rate, round(duration * rate), np.random.default_rng(0)) for source in act.sources]
    return np.sum(sources, axis=0)


def picture(thing, time, size=64):
    """The thing alone on a dim picture (size, size, 3)."""
    light = Light(np.array([0.3, -0.8, 0.5], np.float32), np.ones(3, np.float32))
    painter = thing.painter(Look(np.random.default_rng(3), light, size, 0.6))
    canvas = Canvas(np.full((size, size, 3), 0.2, np.float32), View(size, 0, 0))
    painter.draw(canvas, time)
    return canvas.image


def frames_around(time):
    """Times of the last frame before a moment and of the first one after it."""
    after = int(np.ceil(time * FPS))
    return (after - 1) / FPS, after / FPS


@pytest.mark.parametrize("family", MACHINES)
@pytest.mark.parametrize("duration", [1.0, 4.0, 20.0])
def test_events_lie_within_clips_of_any_length(family, duration):
    for act in acts(family, 4, duration):
        assert act.events
        for event in act.events:
            assert 0 <= event.time < duration - END_MARGIN
            assert event.time + event.seconds <= duration + 1e-9
            assert 0 < event.loudness <= 1
        sharp = sum(event.seconds == 0 for event in act.events)
        assert sharp <= 1 + duration * (7 if family == "typing" else 3)


@pytest.mark.parametrize("family", SUDDEN)
def test_the_first_sound_is_heard_at_the_first_event(family):
    for act in acts(family, 6):
        first = min(act.events, key=lambda event: event.time)
        sound, at = np.abs(dry(act)), round(first.time * RATE)
        assert sound[:at].max(initial=0) < 1e-6
        assert sound[at : at + RATE // 200].max() > 0.1 * first.loudness


@pytest.mark.parametrize("family", ["tick", "typing", "fireworks", "bell"])
def test_what_sounds_suddenly_is_an_event(family):
    clips = [render_clip(seed, duration=6.0, family=family, video=False) for seed in range(4)]
    score = sum(
        (
            match_onsets(
                detect_onsets(clip.audio, RATE), np.array([e.time for e in clip.events if e.seconds == 0]), 0.02
            )
            for clip in clips
        ),
        Matches(),
    )
    assert score.f1 > 0.9


@pytest.mark.parametrize("family", MACHINES)
def test_the_sound_is_finite_and_as_loud_as_its_events(family):
    for act in acts(family, 3):
        sound = dry(act)
        assert np.isfinite(sound).all()
        loudest = max(event.loudness for event in act.events)
        assert 0.15 * loudest < np.abs(sound).max() < 2.5 * loudest
        np.testing.assert_array_equal(sound, dry(act))


@pytest.mark.parametrize("family", MACHINES)
def test_all_words_name_the_kind_and_the_material(family):
    for act in acts(family, 8):
        kind = act.events[0].kind
        for text in (text for level in vars(act.words).values() for text in level):
            words = text.replace(",", "").split()
            assert set(words) & set(KIND_WORDS[kind]), text
            others = {w for other, names in KIND_WORDS.items() if other != kind for w in names}
            assert not set(words) & others, text
            for material in {event.material for event in act.events} - {None}:
                assert TABLE[material].adjective in words


def test_turns_are_the_integral_of_speed():
    spin = Spin((0.0, 1.0, 3.0, 4.0), (0.0, 8.0, 2.0, 0.0))
    times = np.linspace(0, 6, 60001)
    area = np.append(0, np.cumsum((spin.speed(times)[1:] + spin.speed(times)[:-1]) / 2 * np.diff(times)))
    np.testing.assert_allclose(spin.turns(times), area, atol=1e-6)
    assert spin.turns(6.0) == spin.turns(4.0) == 4 + 10 + 1


def test_a_swing_is_slow_at_its_turning_points_and_fast_between_them():
    swing = Swing((1.0, 2.0), (-1.0, 1.0))
    assert [swing.at(time) for time in (0, 1, 2, 9)] == [-1, -1, 1, 1]
    assert swing.at(1.5) == pytest.approx(0)
    assert swing.at(1.05) - swing.at(1.0) < 0.1 * (swing.at(1.525) - swing.at(1.475))


def loudest_hertz(sound, low, high):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return hertz[spectrum.argmax()]


@pytest.mark.parametrize("speed", [15.0, 22.0, 36.0])
def test_the_firing_of_an_engine_follows_its_visible_wheel(speed):
    spin = Spin((0.0,), (speed,))
    machine = engine.Engine(0.5, 0.8, 0.2, spin, (), False, 0.4)
    seen = (machine.angle(2.0) - machine.angle(1.0)) / (2 * np.pi)
    source = engine.Firing("engine", spin, 2, 0.4, 150.0, 0.85, (1.0, 1.0, 1.0, 1.0))
    sound = source.render(RATE, 2 * RATE, np.random.default_rng(0))
    heard = loudest_hertz(sound, 0.6 * 2 * speed, 1.4 * 2 * speed)
    assert heard == pytest.approx(2 * engine.GEAR * seen, abs=1.0)


@pytest.mark.parametrize("blades", [3, 5])
def test_the_hum_of_a_fan_follows_its_visible_blades(blades):
    spin = Spin((0.0,), (30.0,))
    machine = fan.Fan(0.5, 0.5, 0.8, 0.2, spin, blades, True)
    seen = (machine.angle(2.0) - machine.angle(1.0)) / (2 * np.pi)
    sound = fan.Air("fan", spin, blades, 0.4, (1.0, 0.3, 0.2, 0.1)).render(RATE, 2 * RATE, np.random.default_rng(0))
    assert loudest_hertz(sound, 20, 2000) == pytest.approx(blades * fan.GEAR * seen, abs=1.0)


def test_what_turns_is_seen_without_aliasing():
    assert engine.FAST / engine.GEAR / 0.6 < FPS / 2  # the small wheel of the belt is the fastest
    assert fan.FAST / fan.GEAR * 5 < FPS / 2


@pytest.mark.parametrize("family", ["engine", "fan"])
def test_a_machine_is_silent_while_it_stands(family):
    for act in acts(family, 5):
        speed = act.things[0].spin.speed(np.arange(6 * RATE) / RATE)
        sound = dry(act)
        top = np.abs(sound).max()
        assert np.abs(sound[speed == 0]).max(initial=0) < 0.1 * top
        running = np.zeros(len(sound), bool)
        for event in act.events:
            running[round(event.time * RATE) : round((event.time + event.seconds) * RATE) + 1] = True
        assert not speed[~running].any()


@pytest.mark.parametrize("device", tick.DEVICES)
def test_a_clock_ticks_where_its_swing_says(device):
    found = [act for act in acts("tick", 24) if act.things[0].device == device]
    assert found
    for act in found:
        ticker = act.things[0]
        for event in act.events:
            place, before, after = (ticker.swing.at(event.time + d) for d in (0.0, -0.1, 0.1))
            if device == "metronome":
                assert abs(place) == pytest.approx(1)
                assert (place - before) * (after - place) <= 0
            elif device == "pendulum clock":
                assert place == pytest.approx(0, abs=1e-6)
                assert before * after < 0
            else:
                tips = [np.array(ticker.tip(event.time + d)) for d in (-0.01, tick.JUMP_SECONDS)]
                assert np.linalg.norm(tips[1] - tips[0]) > 0.05


def test_a_held_clock_does_not_tick():
    held = 0
    for act in acts("tick", 20):
        ticker = act.things[0]
        for event in act.events:
            assert any(run.start < event.time <= run.end + 1e-9 for run in ticker.runs)
        for before, after in zip(ticker.runs, ticker.runs[1:], strict=False):
            held += 1
            assert ticker.grip((before.end + after.start) / 2) == 1
            assert ticker.grip((before.end + before.start) / 2) == 0
    assert held


def test_a_key_is_down_from_the_frame_of_its_stroke():
    board = acts("typing", 1)[0].things[0]
    for stroke in board.strokes[:10]:
        before, after = frames_around(stroke.time)
        assert stroke.key in board.pressed(after)
        assert stroke.key not in board.pressed(before)
        x, y = board.place(stroke.key)
        assert board.finger(stroke.hand, stroke.time) == (x, y + keyboard.TRAVEL * board.high)
        assert board.finger(stroke.hand, stroke.time - 0.05)[1] < y
        change = np.abs(picture(board, after) - picture(board, before)).max(-1)
        column, row = int(64 * x), int(64 * y)
        assert change[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4].max() > 0.2


def test_the_space_bar_is_lower():
    plain = keyboard.Stroke(0.0, 0.1, 3, 0, 1.0)
    centres = []
    for stroke in (plain, replace(plain, key=keyboard.SPACE)):
        clicks = keyboard.Clicks("keyboard", (stroke,), 1.0, 3000.0)
        power = np.abs(np.fft.rfft(clicks.render(RATE, 800, np.random.default_rng(0)))) ** 2
        centres.append((power * np.arange(len(power))).sum() / power.sum())
    assert centres[1] < 0.8 * centres[0]


def test_a_bang_comes_as_late_as_its_burst_is_far():
    for act in acts("fireworks", 8):
        show = act.things[0]
        heard = {rocket.flash + rocket.distance / 343: rocket for rocket in show.rockets if not rocket.dud}
        bangs = [event for event in act.events if event.seconds == 0]
        for event in bangs:
            rocket = heard[event.time]
            assert (event.x, event.y, event.loudness) == (rocket.x, rocket.y, rocket.loudness)
            assert 0.1 < event.time - rocket.flash < 0.75
        assert len(bangs) == sum(time < 6.0 - END_MARGIN for time in heard)


def test_a_burst_flashes_at_its_frame_and_is_larger_when_near():
    far = fireworks.Rocket(1.01, 200.0, 0.5, 0.3)
    near = replace(far, distance=40.0)
    assert near.radius > 2 * far.radius
    show = fireworks.Show((far,), 0.6)
    before, after = frames_around(far.flash)
    light = [picture(show, time)[10:28, 22:42].mean() for time in (before, after)]
    assert light[1] > light[0] + 0.1
    dud = fireworks.Show((replace(far, dud=True),), 0.6)
    assert picture(dud, after).max() == pytest.approx(0.2)


def test_thunder_comes_as_late_as_its_bolt_is_far():
    for act in acts("thunder", 8):
        sky, glare = act.things
        assert sky.flashes == glare.flashes
        heard = {flash.flash + flash.distance / 343: flash for flash in sky.flashes if flash.bolt}
        assert {event.time for event in act.events} <= set(heard)
        for event in act.events:
            assert event.seconds > 0
            assert 0.3 <= event.time - heard[event.time].flash < 3.1


def test_lightning_brightens_the_whole_picture_at_its_frame():
    joints = ((0.5, 0.0), (0.55, 0.3), (0.5, 0.6))
    near = thunder.Lightning(1.01, 150.0, joints, joints, 3.0)
    far = replace(near, distance=900.0)
    before, after = frames_around(near.flash)
    light = [[picture(thunder.Glare((flash,)), time).min() for time in (before, after)] for flash in (near, far)]
    assert light[0][0] == light[1][0] == pytest.approx(0.2)
    assert light[0][1] > light[1][1] > 0.3
    bolts = [(picture(thunder.Sky((flash,), True), after).min(-1) > 0.4).sum() for flash in (near, far)]
    assert bolts[0] > bolts[1] > 10


def test_a_bell_sounds_at_its_turning_points_when_it_swings_wide():
    silent = 0
    for act in (act for act in acts("bell", 20) if act.things[0].shape == "bowl"):
        it = act.things[0]
        turns = dict(zip(it.swing.times, it.swing.places, strict=True))
        for event in act.events:
            assert abs(turns[event.time]) > bell.SOUNDS * bell.WIDEST
            rim = [np.array(it.place(2.3, side * 0.78 * it.aspect, event.time)) for side in (-1, 1)]
            clapper = np.array(it.clapper(event.time))
            assert min(np.linalg.norm(clapper - side) for side in rim) < 1e-9
            assert np.linalg.norm(clapper - np.array(it.clapper(event.time - 0.08))) > 0.03
        heard = {event.time for event in act.events}
        silent += sum(turns[t] != 0 and t not in heard for t in turns if t < 5.9)
    assert silent


def test_a_hammer_touches_a_chime_when_it_sounds():
    for act in (act for act in acts("bell", 20) if act.things[0].shape == "block"):
        *tubes, hammer = act.things
        for blow in hammer.blows:
            tube = tubes[blow.tube]
            gap = hammer.head(blow.time)[0] - (tube.x + tube.aspect * tube.size)
            assert gap == pytest.approx(0.5 * bell.HAMMER if blow.feint else 0)
            assert hammer.head(blow.time - 0.04)[0] - hammer.head(blow.time)[0] > 0.02
            assert ((blow.time, blow.loudness) in tube.strokes) != blow.feint


@pytest.mark.parametrize("material", bell.AMONG)
def test_a_bell_rings_longer_than_anything_struck(material):
    hits = ((0.0, 1.0),)
    rung = bell.Ringing("bell", material, 500.0, False, hits).render(RATE, 2 * RATE, np.random.default_rng(0))
    struck = Contacts("pot", material, 0.12, 1.0, hits).render(RATE, 2 * RATE, np.random.default_rng(0))
    late = [np.abs(sound[RATE : RATE + RATE // 4]).max() for sound in (rung, struck)]
    assert late[0] > 2 * late[1]
