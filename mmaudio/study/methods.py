"""What is compared: one folder of videos for each method, with the same names in all of them."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmaudio.media.probe import VIDEO_SUFFIXES

PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}  # by every browser
NAME = re.compile(r"[\w.+-]{1,40}")
SHOWN = 5  # names in a message


class StudyError(ValueError):
    """Something about a study that the user can mend; one line."""


def read_methods(words: Sequence[str]) -> dict[str, dict[str, Path]]:
    """`NAME=DIR` words to the file of every method and video: {method: {stem: path}}.

    Raises:
        StudyError: a word is no such pair, a folder has no usable videos, or they do not match.
    """
    methods: dict[str, dict[str, Path]] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not NAME.fullmatch(name) or not folder:
            raise StudyError(f"--methods {word}: expected NAME=DIR, NAME of letters, digits and . + - _ alone")
        if name in methods:
            raise StudyError(f"--methods {word}: there is a method {name} already; give it another name")
        methods[name] = _videos(Path(folder))
    if len(methods) < 2:
        raise StudyError(f"a study compares at least two methods, got {len(methods)}: --methods ours=DIR other=DIR")
    every = sorted(set().union(*methods.values()))
    for name, videos in methods.items():
        if missing := [stem for stem in every if stem not in videos]:
            shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            raise StudyError(f"{name} lacks {len(missing)} of {len(every)} videos ({shown}); every folder needs all")
    return methods


def _videos(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise StudyError(f"{folder}: there is no such folder; check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        if path.suffix.lower() not in PLAYABLE:
            raise StudyError(f"{path}: not every browser plays {path.suffix}; give {', '.join(PLAYABLE)}")
        if not path.name.isprintable():
            raise StudyError(f"{folder}: holds {path.name!r}, a name that cannot be written down; rename it")
        if path.stem in found:
            raise StudyError(f"{folder}: holds {found[path.stem].name} and {path.name}; keep one of them")
        found[path.stem] = path
    if not found:
        raise StudyError(f"{folder}: holds no video ({', '.join(PLAYABLE)})")
    return found
