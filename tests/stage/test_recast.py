import numpy as np
import pytest

from mmaudio.stage import render_clip
from mmaudio.stage.materials import HELD_OUT, MATERIALS
from mmaudio.stage.scene import make_scene, recast


def test_held_out_materials_are_in_no_scene():
    seen = {body.material for seed in range(300) for body in make_scene(seed).bodies}
    assert seen == set(MATERIALS)
    assert not seen & set(HELD_OUT)


def test_recast_changes_the_stuff_but_not_the_movements():
    plain, stone = (render_clip(5, size=48, duration=3, material=m) for m in (None, "stone"))
    assert [e.time for e in stone.events] == [e.time for e in plain.events]
    assert stone.materials == ("stone",)
    assert "stone" in stone.caption
    assert np.abs(stone.audio - plain.audio).max() > 0.01
    assert np.abs(stone.video.astype(int) - plain.video).max() > 20


def test_an_unknown_material():
    with pytest.raises(ValueError, match="unknown material 'cheese': expected one of wood"):
        recast(make_scene(1), "cheese")
