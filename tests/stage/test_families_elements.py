"""Water, fire and wind: what is seen of them says when, how loud and how high they sound."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mmaudio.evaluation.onsets import closest_matching, detect_onsets
from mmaudio.stage.canvas import Canvas, View
from mmaudio.stage.curves import Curve, moments, swelling
from mmaudio.stage.families import FAMILIES
from mmaudio.stage.families.wind import Grass
from mmaudio.stage.phrases import KIND_WORDS
from mmaudio.stage.scene import END_MARGIN, MIN_GAP, Light, Look, Setting

ELEMENTS = ("drip", "pour", "rain", "fire", "wind")
RATE, SIZE, FPS = 16000, 96, 25


def play(family, seed=0, duration=8.0, **setting):
    place = FAMILIES[family].places[0]
    setting = Setting(duration, place, "stone", 0.5, gravity=5.0, **setting)
    for attempt in range(100):
        act = FAMILIES[family].make(np.random.default_rng([seed, attempt]), setting)
        if act.events:
            return act
    raise AssertionError("no act with events")


def sound(act, duration=8.0, rate=RATE):
    return sum(s.render(rate, round(duration * rate), np.random.default_rng(i)) for i, s in enumerate(act.sources))


def filming(act):
    """A function from a time to the picture (SIZE, SIZE, 3) of an act on grey."""
    light = Light(np.array([0.0, -0.8, 0.6], np.float32), np.ones(3, np.float32))
    things = sorted(act.things, key=lambda thing: thing.depth)
    painters = [thing.painter(Look(np.random.default_rng(i), light, SIZE, 0.5)) for i, thing in enumerate(things)]

    def picture(time):
        canvas = Canvas(np.full((SIZE, SIZE, 3), 0.4, np.float32), View(SIZE, 0, 0))
        for painter in painters:
            painter.shadow(canvas, time)
        for painter in painters:
            painter.draw(canvas, time)
        return canvas.image

    return picture


def level(audio, time, seconds=0.1):
    first = round(time * RATE)
    return np.sqrt(np.mean(audio[first : first + round(seconds * RATE)] ** 2))


def test_a_curve_passes_its_points_and_knows_its_area():
    curve = Curve((0.5, 1.0, 3.0), (0.2, 1.0, 0.0))
    assert curve.at(np.array([0.0, 0.5, 1.0, 3.0, 9.0])) == pytest.approx([0.2, 0.2, 1.0, 0.0, 0.0])
    times = np.linspace(0.5, 2.2, 20001)
    assert curve.total(2.2) == pytest.approx(np.trapezoid(curve.at(times), times), abs=1e-6)
    start, seconds, peak = curve.spells(3.0)[0]
    assert (start, peak) == pytest.approx((0.01, 1.0), abs=1e-3)
    assert curve.at(start + seconds) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("duration", [1.0, 8.0, 30.0])
def test_strengths_come_and_go(duration):
    seen = np.concatenate(
        [swelling(np.random.default_rng(seed), duration).at(np.linspace(0, duration, 500)) for seed in range(30)]
    ).reshape(30, 500)
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert np.median(seen.max(1)) > 0.6
    assert (seen < 0.05).mean() > 0.05


def test_more_happens_where_a_curve_is_higher():
    times = moments(np.random.default_rng(0), Curve((0.0, 10.0), (0.0, 1.0)), 10.0, 50.0)
    assert np.all(np.diff(times) > 0)
    assert np.sum(times > 5) > 2 * np.sum(times < 5)
    assert len(times) == pytest.approx(250, abs=60)


@pytest.mark.parametrize(("family", "duration"), list(product(ELEMENTS, [1.0, 8.0, 30.0])))
def test_events_are_inside_and_of_the_right_sort(family, duration):
    for seed in range(5):
        act = play(family, seed, duration)
        for event in act.events:
            assert event.kind == family
            assert event.material is None
            assert 0 < event.time < duration - END_MARGIN
            assert event.time + event.seconds <= duration + 0.01
            assert 0.03 < event.loudness <= 1
            assert 0 <= event.x <= 1
            assert 0 <= event.y <= 1
            assert (event.seconds == 0) == (family == "drip")


@pytest.mark.parametrize("family", ELEMENTS)
def test_sound_is_finite_repeatable_and_below_the_limit(family):
    act = play(family, 3, 3.0)
    low, high = sound(act, 3.0), sound(act, 3.0, 44100)
    assert np.array_equal(low, sound(act, 3.0))
    assert 0.05 < np.abs(low).max() <= 1
    assert 0.05 < np.abs(high).max() <= 1
    spectrum = np.abs(np.fft.rfft(low)) ** 2
    assert spectrum[int(0.46 * 3 * RATE) :].sum() < 1e-3 * spectrum.sum()


@pytest.mark.parametrize("family", ["drip", "pour", "fire"])
def test_half_a_stage_is_enough(family):
    for seed in range(5):
        act = play(family, seed, left=0.5, right=1.0)
        assert all(0.5 < event.x < 1 for event in act.events)


def ranks(values):
    return np.argsort(np.argsort(values))


@pytest.mark.parametrize(("family", "seed"), list(product(["rain", "fire"], range(3))))
def test_level_follows_what_is_seen(family, seed):
    act = play(family, seed)
    picture, audio = filming(act), sound(act)
    times = np.arange(0.1, 7.8, 0.2)
    heard = np.array([level(audio, time, 0.2) for time in times])
    calm = picture(times[np.argmin(heard)] + 0.1)
    seen = np.array([np.abs(picture(time + 0.1) - calm).mean() for time in times])
    assert np.corrcoef(ranks(seen), ranks(heard))[0, 1] > 0.8
    assert heard.max() > 5 * heard.min()


@pytest.mark.parametrize("seed", range(3))
def test_wind_is_as_loud_as_the_grass_is_bent(seed):
    act = play("wind", seed)
    grass = next(thing for thing in act.things if isinstance(thing, Grass))
    picture, audio = filming(replace(act, things=(grass,))), sound(act)
    times = np.arange(0.1, 7.8, 0.2)
    heard = np.array([level(audio, time, 0.2) for time in times])
    tips = slice(round((grass.depth - 0.12) * SIZE), round((grass.depth - 0.06) * SIZE))
    upright = np.array([np.abs(picture(time + 0.1)[tips] - 0.4).mean() for time in times])
    assert np.corrcoef(ranks(upright), ranks(heard))[0, 1] < -0.8
    assert heard.max() > 5 * heard.min()


def test_the_brightness_of_rain_follows_its_density():
    act = play("rain", 1)
    audio, density = sound(act), act.sources[0].density
    times = np.arange(0, 8, 0.25)
    strength = density.at(times + 0.125)
    hertz = np.fft.rfftfreq(4000, 1 / RATE)
    power = np.abs(np.fft.rfft(audio.reshape(32, 4000))) ** 2
    bright = (power @ hertz) / power.sum(1)
    loud = strength > 0.2
    assert np.corrcoef(strength[loud], bright[loud])[0, 1] > 0.6


def test_the_pitch_of_wind_follows_its_strength():
    act = play("wind", 2)
    audio, strength = sound(act), act.sources[0].strength.at(np.arange(0.125, 8, 0.25))
    hertz = np.fft.rfftfreq(4000, 1 / RATE)
    power = np.abs(np.fft.rfft(audio.reshape(32, 4000))) ** 2 * (hertz > 100)
    centre = (power @ hertz) / power.sum(1)
    loud = strength > 0.15
    assert np.corrcoef(strength[loud], centre[loud])[0, 1] > 0.7


def test_every_crackle_has_a_spark_and_a_click():
    act = play("fire", 1)
    picture, audio = filming(act), sound(act)
    crackles = act.things[0].crackles
    assert len(crackles) > 5
    for crackle in crackles:
        assert np.abs(picture(crackle.time) - picture(crackle.time - 1e-3)).max() > 0.03
        assert np.abs(np.diff(audio))[round(crackle.time * RATE) :][:80].max() > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_a_drip_is_heard_and_seen_when_it_lands(seed):
    act = play("drip", seed)
    times = np.array([event.time for event in act.events])
    for leak in act.things:
        landed = [bead.time for bead in leak.beads if not bead.feint]
        assert np.diff(landed).min(initial=1) >= MIN_GAP
        for bead in (bead for bead in leak.beads if bead.feint):
            low = [leak.drop(bead, bead.time + since) for since in np.arange(-1.0, 0.5, 0.02)]
            assert max(y for y, _ in filter(None, low)) < leak.water - 0.2
    apart = np.sort(times)[np.diff(np.sort(times), prepend=-1) > 0.1]
    audio = sound(act)
    for time in apart:
        first = round(time * RATE)
        assert np.abs(audio[first : first + 80]).max() > 10 * np.abs(audio[first - 80 : first]).max()
    found = detect_onsets(audio, RATE)
    lags = [found[i] - apart[j] for i, j in closest_matching(found, apart, 0.05)]
    assert len(lags) == len(apart)
    assert np.abs(lags).max() <= 0.0101  # the detector works on a grid of 5 ms
    picture = filming(act)
    for event in act.events:
        after = int(np.ceil(event.time * FPS)) / FPS
        x, y = int(event.x * SIZE), int(event.y * SIZE)
        white = [(picture(t)[y - 8 : y, x - 9 : x + 10].min(-1) > 0.85).sum() for t in (after - 1 / FPS, after)]
        assert white[1] > white[0] + 3


def test_large_drops_sound_low():
    act = play("drip", 2)
    beads = [bead for bead in act.sources[0].beads if bead.time < 7.7]
    audio = act.sources[0].render(RATE, 8 * RATE, np.random.default_rng(0))
    peaks = [np.abs(np.fft.rfft(audio[round(b.time * RATE) + 32 :][:800])).argmax() * RATE / 800 for b in beads]
    assert np.corrcoef([bead.size for bead in beads], peaks)[0, 1] < -0.8
    assert min(peaks) > 400
    assert max(peaks) < 4000


@pytest.mark.parametrize("seed", range(3))
def test_a_vessel_fills_and_its_pitch_rises(seed):
    act = play("pour", seed)
    pouring, audio = act.things[0], sound(act)
    times = np.arange(0, 8, 0.02)
    assert np.all(np.diff(pouring.level(times)) >= -1e-12)
    assert 0.5 < pouring.level(8.0) <= 0.95
    inside = [e.time + u * e.seconds for e in act.events for u in (0.25, 0.5, 0.75) if e.time + u * e.seconds < 7.6]
    hertz = np.fft.rfftfreq(4800, 1 / RATE)
    spectra = [np.abs(np.fft.rfft(audio[round(t * RATE) :][:4800], 4800)) * (hertz > 200) for t in inside]
    pitch = [hertz[np.convolve(s**2, np.hanning(41), "same").argmax()] for s in spectra]
    expected = [act.sources[0].empty / (1 - 0.78 * pouring.level(t + 0.15)) for t in inside]
    assert np.median(np.abs(np.log(np.array(pitch) / expected))) < 0.15
    assert pitch[-1] > 1.2 * pitch[0]
    landing = [event.time for event in act.events]
    before = [t - 0.03 for t in landing if np.all(pouring.flow.at(np.linspace(t - 0.25, t, 20)) < 1e-9)]
    assert before
    assert max(level(audio, t, 0.025) for t in before) < 1e-2 * np.abs(audio).max()
    picture = filming(act)
    assert np.abs(picture(landing[0] - 1.5 / FPS) - picture(landing[0] + 8 / FPS)).max() > 0.1


@pytest.mark.parametrize("family", ELEMENTS)
def test_words_name_the_kind_and_no_other(family):
    others = {word for kind, words in KIND_WORDS.items() if kind != family for word in words}
    for seed in range(10):
        for alternatives in vars(play(family, seed).words).values():
            for text in alternatives:
                said = set(text.replace(",", "").split())
                assert said & set(KIND_WORDS[family]), text
                assert not said & others, text


@pytest.mark.parametrize("size", [32, 100, 250])
def test_streaks_and_dots_cover_their_area_at_any_size(size):
    def covered(draw):
        canvas = Canvas(np.zeros((size, size, 3), np.float32), View(size, 0, 0))
        draw(canvas)
        return canvas.image[..., 0].sum() / size**2

    white = np.ones(3, np.float32)
    line = covered(lambda canvas: canvas.streaks([0.2, 3.0], [0.3, 0.5], [0.6, 3.2], [0.7, 0.5], 0.02, white))
    assert line == pytest.approx(0.02 * np.hypot(0.4, 0.4), rel=0.15)
    dots = covered(
        lambda canvas: canvas.dots([0.3, 0.7, -0.5], [0.5, 0.4, 0.5], 0.02, white, np.array([1.0, 0.5, 1.0]))
    )
    assert dots == pytest.approx(1.5 * 0.04**2, rel=0.25)
