"""The picture: the same on every run, any lens and size, and nothing in it hides or shifts a contact."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mmaudio.stage import picture
from mmaudio.stage.camera import MARGIN, Camera
from mmaudio.stage.canvas import Canvas, View
from mmaudio.stage.director import make_scene, split_seeds
from mmaudio.stage.extras import obstacles
from mmaudio.stage.lens import Lens, compress
from mmaudio.stage.materials import TABLE
from mmaudio.stage.motion import Segment, still
from mmaudio.stage.objects import Body
from mmaudio.stage.picture import random_light, render_video
from mmaudio.stage.scene import Act, Look, Scene, Setting, Words, generator
from mmaudio.stage.sets import HARD_SETS, SETS

PLAIN = Lens(
    shutter=0.0, colours=np.eye(3, dtype=np.float32), lift=0.0, gamma=1.0, drift=(0.0, 0.1, 0.0), flicker=0.0, blur=0.0,
    coarse=False, levels=0, noise=0.0, coloured=False, vignette=0.0, crf=0,
)  # fmt: skip
FIXED = Camera(8.0, (1.0, 1.0), np.zeros((2, 2)), np.zeros((0, 4)))


@pytest.fixture
def set_up(monkeypatch):
    """Puts a lens and a camera in place of random ones, and leaves out what wanders and what is in the way."""

    def put(lens: Lens = PLAIN, camera: Camera = FIXED) -> None:
        monkeypatch.setattr(Lens, "random", classmethod(lambda cls, rng: lens))
        monkeypatch.setattr(Camera, "random", classmethod(lambda cls, rng, duration, hard: camera))
        monkeypatch.setattr(picture, "wanderers", lambda rng, horizon: ())
        monkeypatch.setattr(picture, "obstacles", lambda rng, duration: ())

    return put


def setting(**changes) -> Setting:
    return replace(Setting(1.0, "room", "wood", 0.55, 5.0), **changes)


def empty(**changes) -> Scene:
    return Scene(5, setting(**changes), ())


def playing(*bodies: Body) -> Scene:
    return Scene(5, setting(), (Act("drop", bodies, (), (), Words((), (), ())),))


def test_same_on_every_run():
    """Also with compression, whose codec must not depend on threads or timing."""
    seed = next(s for s in range(50) if Lens.random(_lens_stream(s)).crf)
    code = (
        "import hashlib; from mmaudio.stage.director import make_scene; from mmaudio.stage.picture import render_video;"
        f"print(hashlib.sha256(render_video(make_scene({seed}, 1.0), 25, (48, 48)).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert hashlib.sha256(render_video(make_scene(seed, 1.0), 25, (48, 48)).tobytes()).hexdigest() == other


def _lens_stream(seed: int) -> np.random.Generator:
    """The stream of `render_video` where the lens is drawn."""
    rng = generator(seed, "look", 1)
    Camera.random(rng, 1.0, False)
    return rng


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"shutter": 0.02}, 20), ({"colours": np.full((3, 3), 0.3, np.float32)}, 120), ({"lift": 0.08}, 40),
        ({"gamma": 0.8}, 40), ({"drift": (0.06, 0.1, 1.0)}, 30), ({"flicker": 0.012}, 10), ({"blur": 0.22}, 20),
        ({"coarse": True}, 20), ({"levels": 32}, 10), ({"noise": 0.035}, 20),
        ({"noise": 0.035, "coloured": True}, 20), ({"vignette": 0.4}, 60), ({"crf": 30}, 20),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_every_lens_changes_the_picture_a_little(set_up, changes, most):
    body = Body("plastic", "ball", 0.12, 1.0, 0.8, (Segment(0.0, 0.3, 0.2, 0.8, 0.0, 0.3),))
    set_up()
    plain = render_video(playing(body), 10, (48, 48)).astype(int)
    set_up(replace(PLAIN, **changes))
    video = render_video(playing(body), 10, (48, 48))
    assert video.shape == plain.shape
    assert video.dtype == np.uint8
    assert 0.05 < np.abs(video - plain).mean() < most


@pytest.mark.parametrize(("size", "fps"), [((17, 40), 12.5), ((64, 36), 30), ((225, 400), 4)])
def test_any_size_and_rate(size, fps):
    video = render_video(make_scene(3, 1.0), fps, size)
    assert video.shape == (round(fps), *size, 3)
    assert video.astype(float).std(axis=(1, 2)).min() > 2


@pytest.mark.parametrize("place", SETS)
def test_wider_pictures_show_more_of_the_same(set_up, place):
    set_up()
    scene = empty(place=place)
    square, wide = render_video(scene, 1, (48, 48)), render_video(scene, 1, (48, 112))
    assert np.abs(wide[:, :, 36:76].astype(int) - square[:, :, 4:44]).max() <= 2


def test_background_moves_with_the_camera_alone(set_up):
    set_up()
    video = render_video(empty(), 10, (48, 48))
    assert (video == video[0]).all()
    set_up(camera=Camera(0.5, (1.0, 1.0), np.array([[0.0, 0.0], [5 / 48, 0.0]]), np.zeros((0, 4))))
    moved = render_video(empty(), 10, (48, 48)).astype(int)
    assert (moved[0] == video[0]).all()
    assert np.abs(moved[-1, :, 5:] - video[0, :, :-5]).max() <= 2
    assert np.abs(moved[-1] - video[0]).mean() > 3


@pytest.mark.parametrize("hard", [False, True])
def test_cameras_keep_the_stage_in_sight_and_the_set_behind_it(hard):
    for seed in range(200):
        camera = Camera.random(np.random.default_rng(seed), 8.0, hard)
        for time in np.linspace(0, 8, 33):
            zoom, pan_x, pan_y = camera.at(time)
            half = 0.5 / zoom
            assert half + max(abs(pan_x), abs(pan_y)) / zoom <= 0.5 + MARGIN
            assert half - abs(pan_x) / zoom > 0.38
            assert half - abs(pan_y) / zoom > 0.43


def test_hard_scenes_have_other_sets_and_a_camera_that_moves_more():
    assert not {one for sets in SETS.values() for one in sets} & {one for sets in HARD_SETS.values() for one in sets}
    assert SETS.keys() == HARD_SETS.keys()

    def way(hard):
        cameras = [Camera.random(np.random.default_rng(seed), 8.0, hard) for seed in range(40)]
        return [np.ptp([camera.at(time)[1] for time in np.linspace(0, 8, 40)]) for camera in cameras]

    assert min(way(True)) > 0.04
    assert np.mean(way(True)) > 3 * np.mean(way(False))


def test_hard_scenes_are_drawn_with_their_own_sets(set_up, monkeypatch):
    set_up()
    used = []
    for place, sets in HARD_SETS.items():
        spies = tuple(
            lambda rng, canvas, horizon, one=one: (used.append(one), one(rng, canvas, horizon)) for one in sets
        )
        monkeypatch.setitem(HARD_SETS, place, spies)
    scenes = [make_scene(seed, 1.0) for seed in split_seeds("test_hard", 3)]
    for scene in scenes:
        render_video(scene, 1, (32, 32))
    assert len(used) == len(scenes)


def test_obstacles_cover_little_and_not_for_long():
    kinds = {}
    for seed in range(60):
        for obstacle in obstacles(np.random.default_rng(seed), 4.0):
            kinds.setdefault(type(obstacle), []).append(obstacle)
    assert len(kinds) == 3
    for obstacle in [one for same in kinds.values() for one in same[:4]]:
        hidden = []
        for time in np.arange(0, 4, 0.04):
            canvas = Canvas(np.full((40, 40, 3), 9.0, np.float32), View(40, 0, 0))
            obstacle.draw(canvas, float(time), 0.5)
            hidden.append(canvas.image[10:, 6:34, 0] < 5)  # where things play
        assert np.mean(hidden, axis=(1, 2)).max() < 0.08
        assert np.mean(hidden, axis=0).max() < 0.1  # no place for a tenth of the time


@pytest.mark.parametrize("off", [0.0, 0.3, -0.4])  # frames between the contact and the nearest frame
def test_motion_blur_keeps_the_frame_of_the_contact(set_up, off):
    fps, contact = 25, (12 + off) / 25
    fall = Segment(contact - 0.4, 0.4, 0.5, 0.5, 0.4, 0.0, gravity=5.0)
    rise = Segment(contact, 0.4, 0.5, 0.5, 0.0, 0.0, speed=1.4, gravity=5.0)
    ball = Body("plastic", "ball", 0.1, 1.0, 0.85, (fall, rise))
    set_up(replace(PLAIN, shutter=0.02))
    moving = np.abs(render_video(playing(ball), fps, (64, 64)).astype(float) - render_video(empty(), fps, (64, 64)))
    weight = moving.sum(axis=(2, 3))[6:19]  # (T, H)
    centre = (weight * np.arange(64)).sum(axis=1) / weight.sum(axis=1)
    assert 6 + centre.argmax() == 12


def test_compression_keeps_every_frame_in_its_place():
    frames = np.full((20, 33, 47, 3), 60, np.uint8)
    for k in range(20):
        frames[k, 8:24, 2 * k : 2 * k + 8] = 220
    packed = compress(frames, 25, 34)
    assert packed.shape == frames.shape
    away = np.abs(packed[:, None].astype(int) - frames[None]).mean(axis=(2, 3, 4))
    assert (away.argmin(axis=1) == np.arange(20)).all()


def test_materials_are_told_apart_at_64_pixels():
    """By nothing but the mean and the spread of the colours of a ball: the nearest neighbour is of its material."""
    points, names = [], []
    for material in TABLE:
        for seed in range(8):
            rng = np.random.default_rng(seed)
            look = Look(rng, random_light(rng, "room"), 64, 0.5)
            canvas = Canvas(np.full((64, 64, 3), 0.5, np.float32), View(64, 0, 0))
            Body(material, "ball", 0.12, 1.0, 0.62, still(0.5)).painter(look).draw(canvas, 0.0)
            ball = canvas.image[26:38, 26:38].reshape(-1, 3)
            points.append([*ball.mean(0), *ball.std(0), np.ptp(ball.mean(1))])
            names.append(material)
    points, names = np.array(points), np.array(names)
    points /= points.std(axis=0)
    away = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    assert (names[away.argmin(axis=1)] == names).mean() > 0.9
