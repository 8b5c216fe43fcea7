"""Both picking rules against brute force and against FFmpeg's own filter."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest
from mediafiles import cfr

from mmaudio.media.picking import RULES

VFR = [Fraction(n, 1000) for n in (0, 10, 45, 130, 131, 200, 480, 481, 482, 900, 960, 1500, 1510, 1620, 2000)]
SOURCES = {"5": cfr(12, 5), "12": cfr(30, 12), "24": cfr(60, 24), "25": cfr(60, 25), "30": cfr(75, 30), "vfr": VFR}
SOURCES["29.97"] = cfr(75, Fraction(30_000, 1001))


def picked(rule: str, rate: int, times: list[Fraction], duration: float, end: Fraction) -> list[int]:
    picker = RULES[rule](rate, duration)
    slots: list[int] = []
    for index, time in enumerate(times):
        earlier, here = picker.offer(time)
        slots += [index - 1] * earlier + [index] * here
        if picker.done:
            return slots
    return slots + [len(times) - 1] * picker.finish(end)


def first_oracle(rate: int, times: list[Fraction], duration: float) -> list[int]:
    slots, at = [], 0.0
    while True:
        index = next((i for i, t in enumerate(times) if float(t) >= at), None)
        if index is None or float(times[index]) > duration:
            return slots
        slots.append(index)
        at += 1 / rate


def nearest_oracle(rate: int, times: list[Fraction], end: Fraction) -> list[int]:
    count = math.floor(end * rate + Fraction(1, 2))
    return [max(i for i, t in enumerate(times) if t < (n + Fraction(1, 2)) / rate) for n in range(count)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rate", [8, 25])
@pytest.mark.parametrize("duration", [0.7, 1.0, 2.0, math.inf])
def test_first_at_or_after(source, rate, duration):
    times = SOURCES[source]
    slots = picked("first", rate, times, duration, times[-1])
    expected = first_oracle(rate, times, duration)
    needed = len(expected) if math.isinf(duration) else min(len(expected), math.ceil(duration * rate))
    assert slots[:needed] == expected[:needed]
    assert len(slots) >= needed
    assert len(slots) <= len(expected)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rate", [8, 25])
@pytest.mark.parametrize("duration", [0.7, 1.0, 2.0, math.inf])
def test_nearest(source, rate, duration):
    times = SOURCES[source]
    end = times[-1] + Fraction(1, 24)
    expected = nearest_oracle(rate, times, end)
    if not math.isinf(duration):
        expected = expected[: math.ceil(duration * rate)]
    assert picked("nearest", rate, times, duration, end) == expected


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rate", [8, 25])
def test_nearest_is_ffmpegs_fps_filter(source, rate):
    times = SOURCES[source]
    base = Fraction(1, 120_000)
    graph = av.filter.Graph()
    head = graph.add_buffer(width=16, height=16, format="gray", time_base=base)
    fps, tail = graph.add("fps", str(rate)), graph.add("buffersink")
    head.link_to(fps)
    fps.link_to(tail)
    graph.configure()
    slots = []

    def drain():
        while True:
            try:
                slots.append(int(graph.pull().to_ndarray()[0, 0]))
            except (av.BlockingIOError, av.EOFError):
                return

    for index, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), index, np.uint8), format="gray")
        frame.time_base, frame.pts = base, int(time / base)
        graph.push(frame)
        drain()
    graph.push(None)
    drain()
    ours = picked("nearest", rate, times, math.inf, times[-1] + Fraction(1, 24))
    common = min(len(ours), len(slots))
    assert ours[:common] == slots[:common]
    assert len(times) > 1
    assert common >= math.floor(times[-1] * rate)


def test_a_huge_gap_costs_no_more_slots_than_the_duration():
    assert len(picked("nearest", 25, [Fraction(0), Fraction(10**9)], 2.0, Fraction(10**9))) == 50
    assert len(picked("first", 25, [Fraction(0), Fraction(10**9)], 2.0, Fraction(10**9))) == 1
