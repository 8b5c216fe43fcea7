"""From seeds to scenes: who plays, where, of what, and for whom."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from mmaudio.stage import FAMILIES, HELD_OUT, KINDS, MATERIALS, SPLITS, SURFACES, make_scene, split_seeds
from mmaudio.stage.director import contrast, split_of
from mmaudio.stage.materials import HELD_OUT_PAIRS
from mmaudio.stage.scene import END_MARGIN, generator

HARD = SPLITS["test_hard"][0]
DURATIONS = (1.0, 1.3, 2.0, 5.0, 8.0, 30.0)


def pairs(scene):
    """(family, material) of all that sounds."""
    return {(act.family, e.material) for act in scene.acts + scene.unseen for e in act.events if e.material}


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed, 2.5) for seed in range(300)]


@pytest.fixture(scope="module")
def hard_scenes():
    return [make_scene(seed, 2.5) for seed in range(HARD, HARD + 60)]


def test_every_family_and_material_has_its_scenes(scenes):
    assert {act.family for scene in scenes for act in scene.acts} == set(FAMILIES)
    heard = {name for scene in scenes for name in scene.materials}
    assert heard >= set(MATERIALS)
    assert not heard & set(HELD_OUT)
    assert heard <= {*MATERIALS, *SURFACES}


def test_scenes_vary(scenes):
    share = Counter(len(scene.acts) for scene in scenes)
    assert 0 < share[0] < 0.06 * len(scenes)
    assert 0.08 * len(scenes) < share[2] < 0.25 * len(scenes)
    assert any(scene.unseen for scene in scenes)
    assert any(scene.bystanders for scene in scenes)
    assert max(Counter(scene.family for scene in scenes).values()) < 0.3 * len(scenes)


def test_hard_pairs_are_in_test_hard_only(scenes, hard_scenes):
    assert not any(pairs(scene) & HELD_OUT_PAIRS for scene in scenes)
    assert all(pairs(scene) and pairs(scene) <= HELD_OUT_PAIRS for scene in hard_scenes)
    assert len(set().union(*map(pairs, hard_scenes))) >= 5


def test_two_acts_make_different_sounds(scenes):
    for scene in scenes:
        kinds = [kind for act in scene.acts + scene.unseen for kind in FAMILIES[act.family].kinds]
        assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("family", FAMILIES)
def test_any_duration_has_events_of_the_family(family):
    for seed in range(12):
        duration = DURATIONS[seed % len(DURATIONS)]
        events = make_scene(seed if seed % 3 else HARD + seed, duration, family=family).events
        assert events
        assert list(events) == sorted(events, key=lambda event: event.time)
        for event in events:
            assert event.kind in FAMILIES[family].kinds
            assert event.kind in KINDS
            assert 0 <= event.time < duration - END_MARGIN
            assert event.time + event.seconds <= duration + 1e-6
            assert 0 < event.loudness <= 1


def test_a_contrast_shares_nothing(scenes):
    silent = 0
    for scene in scenes[:60]:
        other = contrast(scene, np.random.default_rng(scene.seed))
        assert not set(other.kinds) & set(scene.kinds)
        assert not set(other.materials) & set(scene.materials)
        assert not pairs(other) & HELD_OUT_PAIRS
        silent += not other.acts
    assert silent == 0


def test_splits_are_disjoint():
    spans = sorted(SPLITS.values())
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    assert list(split_seeds("val", 3, start=2)) == [1_000_002, 1_000_003, 1_000_004]
    assert all(split_of(split_seeds(split, 1)[0]) == split for split in SPLITS)
    assert split_of(1_999_999) is None


def test_bad_split_requests_are_refused():
    with pytest.raises(ValueError, match="unknown split"):
        split_seeds("dev", 1)
    with pytest.raises(ValueError, match="10000 clips"):
        split_seeds("test", 10_001)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"family": "circus"}, "unknown family 'circus': expected one of drop"),
        ({"material": "cheese"}, "unknown material 'cheese': expected one of wood"),
        ({"family": "rain", "material": "wood"}, "family rain is made of wood: it can be nothing; leave"),
        ({"family": "bell", "material": "wood"}, "family bell is made of wood: it can be bronze, metal, glass"),
    ],
    ids=lambda value: "",
)
def test_bad_castings_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        make_scene(1, **request_)


def test_the_streams_of_scenes_differ():
    assert generator(1, "scene").random() != generator(2, "scene").random()
