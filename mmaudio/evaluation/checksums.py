"""Checksums of weight files, remembered: reading gigabytes only to know that they are the same takes seconds."""

import contextlib
import json
from pathlib import Path

from mmaudio.data.parts import write_text
from mmaudio.evaluation.cache import file_key
from mmaudio.weights import cache_dir, fingerprint

REMEMBERED = "checksums.json"  # in the cache folder: path -> size, two times and checksum of the file


def checksum(path: Path) -> str:
    """Of weights, the same in any format; of another file (.json, .txt) its bytes'. A file that was changed is read.

    Raises:
        WeightError: no weight file, or a damaged one.
    """
    name, memory = str(path.absolute()), cache_dir() / REMEMBERED
    facts = path.stat()
    state = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]  # a copy may keep the first two
    known = _read(memory)
    match known.get(name):
        case [*before, str(found)] if before == state:
            return found
    found = file_key(path) if path.suffix in (".json", ".txt") else fingerprint(path)
    with contextlib.suppress(OSError):  # where nothing can be remembered, it is read again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_text(memory, json.dumps(_read(memory) | {name: [*state, found]}, indent=1))
    return found


def _read(memory: Path) -> dict[str, list]:
    """What is remembered; nothing if the file is missing or damaged."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
