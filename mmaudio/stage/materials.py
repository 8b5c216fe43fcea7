"""What things are made of: one table that the physics, the picture, the sound and the captions all read."""

from dataclasses import dataclass

STICK_HEAD_RADIUS = 0.032  # stage units


@dataclass(frozen=True)
class Material:
    """Sound and mechanics of one material. Frequencies in Hz for an object of half-height 0.1 stage units."""

    adjective: str  # the word used in captions
    restitution: float  # speed kept in a bounce on a hard floor
    base_hz: float
    ratios: tuple[float, ...]  # partials relative to base_hz
    t60: float  # seconds for the lowest partial to fall by 60 dB
    damping_tilt: float  # t60 of a partial is t60 * ratio ** -damping_tilt
    rolloff: float  # gain of a partial is ratio ** -rolloff
    contact_hz: float  # corner of the contact spectrum at full impact: hard bodies touch briefly, so brightly
    click: float  # level of the contact noise relative to the tone
    click_seconds: float
    squash: float  # how far it flattens at full impact
    sound_word: str


TABLE = {
    "wood": Material(
        adjective="wooden", restitution=0.52,
        base_hz=420.0, ratios=(1, 1.72, 2.57, 3.9, 4.95, 6.6, 8.4), t60=0.20, damping_tilt=0.75, rolloff=0.9,
        contact_hz=2600.0, click=0.45, click_seconds=0.006, squash=0.03, sound_word="knocking",
    ),
    "metal": Material(
        adjective="metal", restitution=0.56,
        base_hz=780.0, ratios=(1, 1.51, 2.32, 2.76, 3.83, 4.41, 5.40, 6.7, 8.93, 11.3), t60=1.20, damping_tilt=0.35,
        rolloff=0.35, contact_hz=7000.0, click=0.30, click_seconds=0.003, squash=0.015, sound_word="ringing",
    ),
    "glass": Material(
        adjective="glass", restitution=0.60,
        base_hz=1750.0, ratios=(1, 1.44, 2.03, 2.32, 2.98, 3.65, 4.25, 5.1), t60=0.60, damping_tilt=0.5, rolloff=0.45,
        contact_hz=8000.0, click=0.35, click_seconds=0.002, squash=0.015, sound_word="clinking",
    ),
    "rubber": Material(
        adjective="rubber", restitution=0.76,
        base_hz=190.0, ratios=(1, 2.0, 3.1), t60=0.18, damping_tilt=0.6, rolloff=1.4,
        contact_hz=700.0, click=0.08, click_seconds=0.006, squash=0.22, sound_word="thumping",
    ),
    "ceramic": Material(
        adjective="ceramic", restitution=0.48,
        base_hz=1080.0, ratios=(1, 1.59, 2.14, 2.65, 3.5, 4.9, 6.2), t60=0.34, damping_tilt=0.6, rolloff=0.6,
        contact_hz=5500.0, click=0.45, click_seconds=0.004, squash=0.015, sound_word="clattering",
    ),
    "plastic": Material(
        adjective="plastic", restitution=0.66,
        base_hz=640.0, ratios=(1, 1.38, 2.15, 2.9, 4.3, 5.7), t60=0.07, damping_tilt=0.1, rolloff=0.15,
        contact_hz=3600.0, click=0.60, click_seconds=0.005, squash=0.08, sound_word="clacking",
    ),
    "cardboard": Material(
        adjective="cardboard", restitution=0.42,
        base_hz=230.0, ratios=(1, 1.47, 2.2, 3.1, 4.4), t60=0.05, damping_tilt=0.1, rolloff=0.5,
        contact_hz=1900.0, click=1.60, click_seconds=0.026, squash=0.06, sound_word="thudding",
    ),
    "bamboo": Material(
        adjective="bamboo", restitution=0.58,
        base_hz=820.0, ratios=(1, 2.92, 5.4), t60=0.26, damping_tilt=1.2, rolloff=1.6,
        contact_hz=3200.0, click=0.15, click_seconds=0.003, squash=0.02, sound_word="tocking",
    ),
    "leather": Material(
        adjective="leather", restitution=0.62,
        base_hz=80.0, ratios=(1, 1.6, 2.3), t60=0.07, damping_tilt=0.5, rolloff=1.5,
        contact_hz=420.0, click=1.20, click_seconds=0.018, squash=0.16, sound_word="thudding",
    ),
    "bronze": Material(
        adjective="bronze", restitution=0.50,
        base_hz=330.0, ratios=(0.5, 1, 1.2, 1.5, 2.0, 2.5, 2.66, 3.0, 4.0, 5.3), t60=2.6, damping_tilt=0.8,
        rolloff=0.5, contact_hz=3600.0, click=0.12, click_seconds=0.003, squash=0.01, sound_word="chiming",
    ),
    "stone": Material(
        adjective="stone", restitution=0.40,
        base_hz=2300.0, ratios=(1, 1.83, 2.71, 3.3), t60=0.06, damping_tilt=0.2, rolloff=0.4,
        contact_hz=9000.0, click=0.80, click_seconds=0.003, squash=0.0, sound_word="clicking",
    ),
}  # fmt: skip
HELD_OUT = ("stone",)  # never in a scene of its own accord, so something is left that models have not learned
MATERIALS = tuple(name for name in TABLE if name not in HELD_OUT)
SURFACES = ("gravel", "snow", "grass")  # of the ground, under feet only
# (family, material): never together but in the split test_hard, which has nothing else.
HELD_OUT_PAIRS = frozenset(
    {
        ("drop", "glass"), ("drop", "leather"), ("strike", "plastic"), ("strike", "bronze"), ("collide", "wood"),
        ("collide", "ceramic"), ("roll", "metal"), ("roll", "bamboo"), ("footsteps", "metal"), ("bell", "glass"),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Floor:
    """What objects land on: it takes speed away, softens the contact and adds its own short thud."""

    phrase: str
    restitution: float  # multiplies the object's
    brightness: float  # multiplies the contact corner frequency
    thud_hz: float
    thud_t60: float
    thud: float  # level relative to the object's tone


FLOORS = {
    "wood": Floor("a wooden floor", 0.97, 0.85, 130.0, 0.14, 0.6),
    "stone": Floor("a stone floor", 1.0, 1.0, 210.0, 0.05, 0.4),
    "tile": Floor("a tiled floor", 1.0, 1.1, 330.0, 0.06, 0.4),
    "carpet": Floor("a carpet", 0.80, 0.40, 75.0, 0.08, 0.6),
    "concrete": Floor("concrete", 1.0, 1.0, 180.0, 0.05, 0.4),
    "lawn": Floor("a lawn", 0.70, 0.35, 65.0, 0.07, 0.5),
}
FLOORS_OF = {
    "room": ("wood", "stone", "tile", "carpet"),
    "outdoors": ("stone", "concrete", "lawn"),
    "night": ("stone", "concrete", "lawn"),
}

# Caption nouns of each shape; the first one is the plain word.
SHAPES = {
    "ball": ("ball", "sphere"),
    "block": ("block", "box"),
    "bowl": ("bowl",),
    "pot": ("pot", "cup"),
    "bottle": ("bottle",),
}
