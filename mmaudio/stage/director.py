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


def split_seeds(split: str, count: int, start: int = 0) -> range:
    """`count` seeds of a split, from its `start`-th on. Splits never share a seed."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    first, last = SPLITS[split]
    if count < 0 or start < 0 or first + start + count > last:
        raise ValueError(f"split {split!r} holds {last - first} clips: got start={start}, count={count}")
    return range(first + start, first + start + count)


def is_hard(seed: int) -> bool:
    """Whether a seed belongs to test_hard."""
    first, last = SPLITS["test_hard"]
    return first <= seed < last


def make_scene(seed: int, duration: float = 8.0, family: str | None = None, material: str | None = None) -> Scene:
    """The scene of a seed.

    Args:
        family: this family alone on the stage; None: as the seed has it.
        material: all solid things are made of it, also one that no scene has of its own accord (`HELD_OUT`).

    Raises:
        ValueError: no such family or material, or a family without solid things is asked for with a material.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: expected one of {', '.join(FAMILIES)}")
    if material is not None and material not in TABLE:
        raise ValueError(f"unknown material {material!r}: expected one of {', '.join(TABLE)}")
    if material is not None and family is not None and not FAMILIES[family].solid:
        raise ValueError(f"nothing of the family {family} is made of a material: leave material out")
    rng = generator(seed, "scene")
    hard = is_hard(seed)
    pool = [name for name in FAMILIES if _fits(name, hard, material)]
    first = str(rng.choice(pool)) if family is None else family
    place = str(rng.choice(FAMILIES[first].places))
    setting = Setting(
        duration, place, str(rng.choice(FLOORS_OF[place])), float(rng.uniform(0.45, 0.68)),
        gravity=float(rng.uniform(4.0, 6.5)), material=material, hard=hard,
    )  # fmt: skip
    chance = rng.random(3)
    bystanders = tuple(bystander(rng, setting) for _ in range(int(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15]))))
    alone = family is not None or material is not None
    if not alone and not hard and chance[0] < SILENCE:
        return Scene(seed, setting, (), (), bystanders)
    second = _partner(rng, first, place, pool) if not alone and chance[1] < TWO else None
    acts = _play(rng, setting, [first] if second is None else [first, second])
    unseen = ()
    if not alone and second is None and chance[2] < UNSEEN:
        unseen = (_hidden(_act(rng, setting, _other(rng, first, pool))),)
    return Scene(seed, setting, acts, unseen, bystanders)


def _fits(family: str, hard: bool, material: str | None) -> bool:
    if hard:
        return any(name == family for name, _ in HELD_OUT_PAIRS)
    return material is None or FAMILIES[family].solid


def _partner(rng: np.random.Generator, first: str, place: str, pool: list[str]) -> str | None:
    """Another family for the same stage, or None if there is none."""
    spaces = {"part": ("part", "around"), "whole": ("around",), "around": ("part", "whole")}[FAMILIES[first].space]
    fits = [n for n in pool if n != first and place in FAMILIES[n].places and FAMILIES[n].space in spaces]
    return str(rng.choice(fits)) if fits else None


def _other(rng: np.random.Generator, first: str, pool: list[str]) -> str:
    kinds = set(FAMILIES[first].kinds)
    return str(rng.choice([name for name in pool if not kinds & set(FAMILIES[name].kinds)]))


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
    for _ in range(100):
        act = FAMILIES[family].make(rng, setting)
        if act.events:
            return act
    raise ValueError(f"no scene of the family {family} fits duration={setting.duration}: take a longer one")


def _hidden(act: Act) -> Act:
    """The act out of sight."""
    return replace(act, things=(), events=tuple(replace(event, seen=False) for event in act.events))
