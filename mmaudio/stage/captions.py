"""What a listener would write: a tag, a sentence or a detailed sentence about a scene, in plain lower-case English."""

import numpy as np

from .materials import FLOORS, SHAPES, TABLE
from .scene import END_MARGIN, Body, Scene

# Every caption holds one of these words, whichever template was drawn.
ACTION_WORDS = {
    "drop": ("bouncing", "bounces", "falls", "falling", "dropped", "dropping", "drops"),
    "strike": ("hit", "hits", "hitting", "struck", "strikes", "striking", "tapped", "tapping"),
}


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption at a random level of detail; it always names the sounding materials and the action."""
    sounding = [body for body in scene.bodies if any(time < scene.duration - END_MARGIN for time, _ in body.impacts)]
    nouns = {id(body): str(rng.choice(SHAPES[body.shape])) for body in sounding}
    plain = " and ".join(_name(body, nouns[id(body)]) for body in sounding)
    things = " and ".join(_article(_name(body, nouns[id(body)])) for body in sounding)
    sized = " and ".join(_article(f"{_size(body)} {_name(body, nouns[id(body)])}") for body in sounding)
    many, floor = len(sounding) > 1, FLOORS[scene.floor].phrase
    verb = "are" if many else "is"
    noise = TABLE[sounding[0].material].sound_word
    count = len(scene.events)
    if scene.family == "drop":
        levels = [
            [f"{plain} bouncing", f"{plain} falling", f"{plain} dropping and bouncing", f"{plain} bouncing, {noise}"],
            [
                f"{things} {'are bouncing' if many else 'bounces'} on {floor}",
                f"{things} {verb} dropped on {floor}",
                f"{things} {verb} falling and bouncing on {floor}",
                f"{things} dropped onto {floor}",
                f"the {noise} of {things} bouncing on {floor}",
            ],
            [
                f"{sized} {verb} dropped on {floor} and {'bounce' if many else 'bounces'} {_count(count)}",
                f"{sized} {verb} bouncing on {floor}, {noise} {_count(count)}",
                f"{sized} {verb} dropped on {floor} and {'land' if many else 'lands'} {_loudness(scene)}, {noise}",
            ],
        ]
    else:
        levels = [
            [f"hitting {plain}", f"{plain} struck by a stick", f"stick hitting {plain}", f"tapping {plain}, {noise}"],
            [
                f"a stick hits {things}",
                f"{things} {verb} struck with a stick",
                f"someone is hitting {things} with a stick",
                f"{things} {verb} tapped with a wooden stick" if _wooden(sounding) else f"{things} {verb} tapped",
                f"the {noise} of {things} struck by a stick",
            ],
            [
                f"{sized} standing on {floor} {verb} hit {_count(count)} with a stick",
                f"a stick strikes {sized} {_count(count)}, {_loudness(scene)}",
                f"{sized} {verb} struck again and again with a stick, {_loudness(scene)}, {noise}",
            ],
        ]
    choices = levels[int(rng.integers(len(levels)))]
    return str(choices[int(rng.integers(len(choices)))])


def _wooden(bodies: list[Body]) -> bool:
    return any(body.material == "wood" for body in bodies)


def _name(body: Body, noun: str) -> str:
    return f"{TABLE[body.material].adjective} {noun}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _size(body: Body) -> str:
    extent = body.size * max(body.aspect, 1.0)
    return "small" if extent < 0.09 else "large" if extent > 0.13 else "medium-sized"


def _count(count: int) -> str:
    words = ["no", "once", "twice", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    if count <= 2:
        return words[count]
    return f"{words[count]} times" if count <= 10 else "many times"


def _loudness(scene: Scene) -> str:
    mean = float(np.mean([event.loudness for event in scene.events]))
    return "softly" if mean < 0.45 else "loudly" if mean > 0.65 else "at varying strength"
