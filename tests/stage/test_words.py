"""Captions name what is there: every kind and material that sounds, and no other."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mmaudio.stage import FAMILIES, KINDS, SPLITS, SURFACES, make_scene, render_clip
from mmaudio.stage.director import contrast
from mmaudio.stage.materials import FLOORS, TABLE
from mmaudio.stage.phrases import KIND_WORDS
from mmaudio.stage.words import SIGHT, captions

HEARD = SPLITS["train_audio"][0]
ADJECTIVES = {material: entry.adjective for material, entry in TABLE.items()} | {name: name for name in SURFACES}
OWN_WORDS = {  # of no other kind: words that tell what sounds
    kind: set(words) - {word for other, more in KIND_WORDS.items() if other != kind for word in more}
    for kind, words in KIND_WORDS.items()
}


def test_every_kind_has_words():
    assert KIND_WORDS.keys() >= {kind for family in FAMILIES.values() for kind in family.kinds}
    assert KIND_WORDS.keys() <= set(KINDS)
    assert all(OWN_WORDS.values())


def levels(scene, seed, heard_only=False):
    return list(vars(captions(scene, np.random.default_rng(seed), heard_only)).values())


def words_of(text):
    return set(re.findall(r"[a-z]+", text))


def unfloored(text, scene):
    """Without what the floor is made of: that may be said, too."""
    floor = scene.setting.floor
    return text if floor in scene.materials else text.replace(FLOORS[floor].phrase, "")


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed, 3.0) for seed in range(300)]


def test_captions_name_what_sounds_and_nothing_else(scenes):
    for seed, scene in enumerate(scenes):
        for text in levels(scene, seed) + levels(scene, seed, heard_only=True):
            found = words_of(text)
            assert all(found & set(KIND_WORDS[kind]) for kind in scene.kinds), (seed, text)
            assert not any(found & OWN_WORDS[kind] for kind in OWN_WORDS if kind not in scene.kinds), (seed, text)
            stuff = words_of(unfloored(text, scene))
            named = {material for material, adjective in ADJECTIVES.items() if adjective in stuff}
            assert named == set(scene.materials), (seed, text)


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_plain_text(family):
    for seed in range(8):
        scene = make_scene(seed, 3.0, family=family)
        for text in levels(scene, seed):
            assert re.fullmatch(r"[a-z][a-z0-9 ,;:'-]*[a-z]", text), text
            assert not re.search(r" ,|  |\b(\w+) \1\b|\ba [aeio]|\ban [^aeiou]", text), text


def test_captions_vary():
    scene = make_scene(3, family="strike")
    drawn = [levels(scene, seed) for seed in range(60)]
    assert [len(set(level)) >= least for level, least in zip(zip(*drawn, strict=True), (12, 25, 25), strict=True)]
    lengths = [np.mean([len(text) for text in level]) for level in zip(*drawn, strict=True)]
    assert lengths == sorted(lengths)  # a tag, a sentence, details


@pytest.mark.parametrize("family", FAMILIES)
def test_who_only_hears_speaks_of_no_sight(family):
    scene = make_scene(2, 3.0, family=family)
    for seed in range(40):
        for text in levels(scene, seed, heard_only=True):
            assert not SIGHT.search(text), text


def test_clips_of_train_audio_are_only_heard():
    clips = [render_clip(HEARD + i, duration=2, video=False, audio=False) for i in range(40)]
    texts = [text for clip in clips for text in (clip.caption, clip.negative, *vars(clip.captions).values())]
    assert not [text for text in texts if SIGHT.search(text)]
    seen = [render_clip(i, duration=2, video=False, audio=False).captions.sentence for i in range(20)]
    assert any(SIGHT.search(text) for text in seen)


def test_negative_captions_name_nothing_that_sounds():
    for seed in range(80):
        clip = render_clip(seed, duration=3, video=False, audio=False)
        found = words_of(clip.negative)
        assert clip.caption in vars(clip.captions).values()
        assert not any(found & OWN_WORDS[kind] for kind in clip.kinds), (seed, clip.negative)
        assert not any(ADJECTIVES[material] in found for material in clip.materials), (seed, clip.negative)
        assert any(found & set(words) for words in KIND_WORDS.values()) or not clip.kinds, (seed, clip.negative)


def test_negative_captions_are_possible():
    """No leather bell, no rubber vessel that breaks."""
    for seed in range(150):
        other = contrast(make_scene(seed, 3.0), np.random.default_rng(seed))
        for act in other.acts:
            assert {event.material for event in act.events} <= {None, *FAMILIES[act.family].materials}


def test_what_is_out_of_sight_is_not_described_by_looks():
    hidden = make_scene(2, 8.0, "thunder").acts
    assert any("lightning" in text for level in vars(hidden[0].words).values() for text in level)
    scene = replace(make_scene(2, 8.0, "drop"), unseen=hidden)
    for seed in range(60):
        assert not any(word in text for text in levels(scene, seed) for word in ("lightning", "flash"))


def test_silence_is_called_so(scenes):
    scene = next(scene for scene in scenes if not scene.acts)
    for text in levels(scene, 0) + levels(scene, 0, heard_only=True):
        assert words_of(text) & {"silence", "silent", "quiet", "nothing", "no"}
