"""The Foley Stage: a simulated audio-visual world with exact ground truth.

Objects fall, bounce and are struck; the picture and the sound come from the same contacts. `render_clip(seed)` makes
one clip, `python -m mmaudio.stage` previews and exports clips as files.
"""

from .captions import ACTION_WORDS, caption
from .clip import SPLITS, StageClip, render_clip, split_seeds
from .materials import FLOORS, MATERIALS, SHAPES
from .scene import FAMILIES, STAGE_VERSION, Event, Scene, body_pose, make_scene, stick_pose

__all__ = [
    "ACTION_WORDS",
    "FAMILIES",
    "FLOORS",
    "MATERIALS",
    "SHAPES",
    "SPLITS",
    "STAGE_VERSION",
    "Event",
    "Scene",
    "StageClip",
    "body_pose",
    "caption",
    "make_scene",
    "render_clip",
    "split_seeds",
    "stick_pose",
]
