"""From a seed to a scene: which families play, where, and what is heard from out of sight."""

from dataclasses import replace

import numpy as np

from .families import FAMILIES
from .materials import FLOORS_OF, HELD_OUT_PAIRS, TABLE
from .objects import bystander
from .scene import Act, Scene, Setting, generator

SPLITS = {
    "train": (0, 1_000_000),
    "val": (1_000_000, 1_010_000),
    "test": (2_000_000, 2_010_000),
    "test_hard": (3_000_000, 3_010_000),
    "train_audio": (4_000_000, 5_000_000),
}
SILENCE, TWO, UNSEEN = 0.02, 0.2, 0.08  # shares of scenes with nothing, with two acts, with something out of sight
TRIES = 1000  # draws of an act until one has an event: some families hardly fit a second
SOLID_WEIGHT = 2.0  # solid families are drawn more often: each has ten materials to learn, the others one sound


def split_seeds(split: str, count: int, start: int = 0) -> range:
    """`count` seeds of a split, from its `start`-th on. Splits never share a seed."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    first, last = SPLITS[split]
    if count < 0 or start < 0 or first + start + count > last:
        raise ValueError(f"split {split!r} holds {last - first} clips: got start={start}, count={count}")
    return range(first + start, first + start + count)


def split_of(seed: int) -> str | None:
    """The split that a seed belongs to; None for a seed of no split."""
    return next((split for split, (first, last) in SPLITS.items() if first <= seed < last), None)


def make_scene(
    seed: int,
    duration: float = 8.0,
    family: str | None = None,
    material: str | None = None,
    hard: bool | None = None,
) -> Scene:
    """The scene of a seed.

    Args:
        family: this family alone on the stage; None: as the seed has it.
        material: all solid things are made of it, also one that no scene has of its own accord (`HELD_OUT`).
        hard: only pairs of material and family that no other split has; None: for the seeds of test_hard.

    Raises:
        ValueError: no such family or material, or a family without solid things is asked for with a material.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: expected one of {', '.join(FAMILIES)}")
    if material is not None and material not in TABLE:
        raise ValueError(f"unknown material {material!r}: expected one of {', '.join(TABLE)}")
    if material is not None and family is not None and not FAMILIES[family].can_be(material):
        choices = ", ".join(FAMILIES[family].materials) or "nothing; leave the material out"
        raise ValueError(f"nothing of the family {family} is made of {material}: it can be {choices}")
    rng = generator(seed, "scene")
    hard = split_of(seed) == "test_hard" if hard is None else hard
    pool = [name for name in FAMILIES if _fits(name, hard, material)]
    first = _choose(rng, pool) if family is None else family
    setting = _setting(rng, first, duration, material, hard)
    chance = rng.random(3)
    bystanders = tuple(bystander(rng, setting) for _ in range(int(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15]))))
    alone = family is not None or material is not None
    if not alone and not hard and chance[0] < SILENCE:
        return Scene(seed, setting, (), (), bystanders)
    others = [] if alone else [name for name in pool if not _same_kinds(name, FAMILIES[first].kinds)]
    partners = [name for name in others if _plays_beside(name, first, setting.place)]
    if partners and chance[1] < TWO:
        return Scene(seed, setting, _play(rng, setting, [first, _choose(rng, partners)]), (), bystanders)
    acts = _play(rng, setting, [first])
    unseen = (_hidden(_act(rng, setting, _choose(rng, others))),) if others and chance[2] < UNSEEN else ()
    return Scene(seed, setting, acts, unseen, bystanders)


def contrast(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene of one act whose kinds and materials are none of those that sound in a scene; silence if none fits."""
    pool = [name for name in FAMILIES if not _same_kinds(name, scene.kinds)]
    for _ in range(20 if pool else 0):
        name = _choose(rng, pool)
        known = FAMILIES[name].materials
        free = [m for m in known if m not in scene.materials and (name, m) not in HELD_OUT_PAIRS]
        if known and not free:
            continue
        material = str(rng.choice(free)) if free else None
        setting = _setting(rng, name, min(scene.duration, 8.0), material, hard=False, without=scene.materials)
        act = FAMILIES[name].make(rng, setting)
        other = Scene(scene.seed, setting, (act,))
        if act.events and not set(other.materials) & set(scene.materials):
            return other
    return Scene(scene.seed, scene.setting, ())


def _setting(
    rng: np.random.Generator,
    family: str,
    duration: float,
    material: str | None,
    hard: bool,
    without: tuple[str, ...] = (),
) -> Setting:
    """Where a family plays; `without`: floors that it must not have."""
    place = str(rng.choice(FAMILIES[family].places))
    floors = [floor for floor in FLOORS_OF[place] if floor not in without]
    return Setting(
        duration, place, str(rng.choice(floors)), float(rng.uniform(0.45, 0.68)),
        gravity=float(rng.uniform(4.0, 6.5)), material=material, hard=hard,
    )  # fmt: skip


def _choose(rng: np.random.Generator, families: list[str]) -> str:
    weights = np.array([SOLID_WEIGHT if FAMILIES[name].solid else 1.0 for name in families])
    return str(rng.choice(families, p=weights / weights.sum()))


def _fits(family: str, hard: bool, material: str | None) -> bool:
    if hard:
        return any(name == family for name, _ in HELD_OUT_PAIRS)
    return material is None or FAMILIES[family].can_be(material)


def _same_kinds(family: str, kinds: tuple[str, ...]) -> bool:
    return bool(set(FAMILIES[family].kinds) & set(kinds))


def _plays_beside(family: str, first: str, place: str) -> bool:
    """Whether a family has room on the stage of another."""
    spaces = {"part": ("part", "around"), "whole": ("around",), "around": ("part", "whole")}[FAMILIES[first].space]
    return place in FAMILIES[family].places and FAMILIES[family].space in spaces


def _play(rng: np.random.Generator, setting: Setting, families: list[str]) -> tuple[Act, ...]:
    parts = [name for name in families if FAMILIES[name].space == "part"]
    acts = []
    for name in families:
        part = setting
        if len(parts) == 2:
            at = parts.index(name)
            part = replace(setting, left=0.5 * at, right=0.5 + 0.5 * at)
        acts.append(_act(rng, part, name))
    return tuple(acts)


def _act(rng: np.random.Generator, setting: Setting, family: str) -> Act:
    for _ in range(TRIES):
        act = FAMILIES[family].make(rng, setting)
        if act.events:
            return act
    raise ValueError(f"no scene of the family {family} fits duration={setting.duration}: take a longer one")


def _hidden(act: Act) -> Act:
    """The act out of sight."""
    return replace(act, things=(), events=tuple(replace(event, seen=False) for event in act.events))
