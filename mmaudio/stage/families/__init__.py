"""The families of scenes: each module makes one act from a random stream and a setting."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..materials import HELD_OUT, MATERIALS
from ..scene import Act, Setting
from . import (
    bell,
    collide,
    drip,
    drop,
    engine,
    fan,
    fire,
    fireworks,
    footsteps,
    keyboard,
    pour,
    rain,
    roll,
    shatter,
    strike,
    thunder,
    tick,
    wind,
)


@dataclass(frozen=True)
class Family:
    """How a family can be cast."""

    make: Callable[[np.random.Generator, Setting], Act]
    kinds: tuple[str, ...]  # of its events
    places: tuple[str, ...] = ("room",)
    materials: tuple[str, ...] = ()  # what its solid things can be made of; none: it has none
    space: Literal["part", "whole", "around"] = "part"  # part: shares the stage; around: fills it beside any other

    @property
    def solid(self) -> bool:
        return bool(self.materials)

    def can_be(self, material: str) -> bool:
        """Whether its things can be made of a material; what can be of any can also be of the held-out ones."""
        return material in self.materials or (self.materials == MATERIALS and material in HELD_OUT)


FAMILIES: dict[str, Family] = {
    "drop": Family(drop.make, ("bounce",), ("room", "room", "outdoors"), materials=MATERIALS),
    "strike": Family(strike.make, ("strike",), ("room", "room", "outdoors"), materials=MATERIALS),
    "collide": Family(collide.make, ("collision",), ("room", "room", "outdoors"), materials=MATERIALS, space="whole"),
    "roll": Family(roll.make, ("roll", "scrape"), ("room", "room", "outdoors"), materials=MATERIALS),
    "footsteps": Family(footsteps.make, ("footstep",), ("room", "outdoors", "outdoors"), materials=footsteps.GROUNDS),
    "shatter": Family(shatter.make, ("shatter",), materials=shatter.BRITTLE),
    "engine": Family(engine.make, ("engine",), ("room", "outdoors")),
    "fan": Family(fan.make, ("fan",), ("room", "room", "outdoors")),
    "rain": Family(rain.make, ("rain",), ("outdoors", "night"), space="around"),
    "fire": Family(fire.make, ("fire",), ("outdoors", "night", "room")),
    "wind": Family(wind.make, ("wind",), ("outdoors",), space="around"),
    "tick": Family(tick.make, ("tick",)),
    "typing": Family(keyboard.make, ("typing",)),
    "drip": Family(drip.make, ("drip",), ("room", "room", "outdoors")),
    "pour": Family(pour.make, ("pour",), ("room", "room", "outdoors")),
    "fireworks": Family(fireworks.make, ("firework",), ("night",)),
    "thunder": Family(thunder.make, ("thunder",), ("night", "outdoors"), space="around"),
    "bell": Family(bell.make, ("bell",), ("room", "outdoors"), materials=bell.AMONG),
}
