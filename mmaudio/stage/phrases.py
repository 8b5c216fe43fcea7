"""Small pieces of English that all families build their captions from."""

import numpy as np

from .materials import SHAPES, TABLE
from .scene import Event

# Every caption of a kind holds one of its words, whichever alternative was drawn.
KIND_WORDS = {
    "bounce": ("bouncing", "bounce", "bounces", "falls", "fall", "falling", "dropped", "dropping", "drops", "drop"),
    "strike": ("hit", "hits", "hitting", "struck", "strikes", "striking", "tapped", "tapping"),
    "collision": ("colliding", "collision", "collide", "collides", "bumping", "bump"),
    "roll": ("rolling", "rolls", "roll"),
    "scrape": ("scraping", "scrapes", "scraped"),
    "footstep": ("footsteps", "steps", "walks", "walking"),
    "shatter": ("breaking", "breaks", "break", "shattering", "shatters", "shatter", "smashing", "smashes", "smash"),
    "engine": ("engine", "motor"),
    "fan": ("fan", "propeller"),
    "rain": ("rain", "rains", "raining"),
    "fire": ("fire", "campfire"),
    "wind": ("wind",),
    "tick": ("tick", "ticks", "ticking"),
    "typing": ("typing", "types", "keyboard"),
    "drip": ("drip", "drips", "dripping"),
    "pour": ("pour", "pours", "poured", "pouring"),
    "firework": ("firework", "fireworks"),
    "thunder": ("thunder", "thunders", "thunderstorm", "thunderclap", "thunderclaps"),
    "bell": ("bell", "chimes"),
}


def name_of(rng: np.random.Generator, material: str, shape: str) -> str:
    """An object's name: "wooden box"."""
    return f"{TABLE[material].adjective} {rng.choice(SHAPES[shape])}"


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def sized(body) -> str:
    """How large an object looks."""
    extent = body.size * max(body.aspect, 1.0)
    return "small" if extent < 0.09 else "large" if extent > 0.13 else "medium-sized"


def count_of(count: int) -> str:
    """How often: "twice", "five times", "many times"."""
    words = ["no times", "once", "twice", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    if count <= 2:
        return words[count]
    return f"{words[count]} times" if count <= 10 else "many times"


def manner(events: tuple[Event, ...]) -> str:
    """How loud, by the mean of the events."""
    mean = float(np.mean([event.loudness for event in events])) if events else 0.5
    return "softly" if mean < 0.45 else "loudly" if mean > 0.65 else "at varying strength"
