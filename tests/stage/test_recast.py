"""Scenes made of one material on request, also of one that no scene has of its own accord."""

import numpy as np
import pytest

from mmaudio.stage import FAMILIES, HELD_OUT, MATERIALS, make_scene, render_clip

SOLID = [name for name, family in FAMILIES.items() if family.solid]


@pytest.mark.parametrize("family", SOLID)
def test_all_is_made_of_what_is_asked_for(family):
    for material in filter(FAMILIES[family].can_be, (*MATERIALS, *HELD_OUT)):
        assert make_scene(3, 3.0, family=family, material=material).materials == (material,)


def test_only_families_with_solid_things_are_cast():
    scenes = [make_scene(seed, 2.0, material="stone") for seed in range(30)]
    assert {scene.family for scene in scenes} <= set(SOLID)
    assert len({scene.family for scene in scenes}) > 1
    assert {scene.materials for scene in scenes} == {("stone",)}


def test_another_material_looks_and_sounds_different():
    wood, stone = (render_clip(5, size=48, duration=3, material=m, family="strike") for m in ("wood", "stone"))
    assert [event.time for event in stone.events] == [event.time for event in wood.events]
    assert "stone" in stone.caption
    assert np.abs(stone.audio - wood.audio).max() > 0.01
    assert np.abs(stone.video.astype(int) - wood.video).max() > 20
