"""The Foley Stage: a simulated audio-visual world with exact ground truth.

Things fall, strike, roll, drip, tick and burn; the picture and the sound come from the same events. `render_clip(seed)`
makes one clip, `python -m mmaudio.stage` previews and exports clips as files.
"""

from .clip import StageClip, render_clip
from .director import SPLITS, make_scene, split_seeds
from .families import FAMILIES
from .materials import HELD_OUT, MATERIALS, SURFACES
from .scene import KINDS, STAGE_VERSION, Event, Scene
from .words import Captions

LABELS = (*KINDS, *MATERIALS, *SURFACES, *HELD_OUT)  # all that a sound can be called

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "KINDS",
    "LABELS",
    "MATERIALS",
    "SPLITS",
    "STAGE_VERSION",
    "SURFACES",
    "Captions",
    "Event",
    "Scene",
    "StageClip",
    "make_scene",
    "render_clip",
    "split_seeds",
]
