"""How long does the search for near-duplicates take, in how much memory, and does it find them?

    python scripts/bench_hygiene.py --clips 1000000

Made-up fingerprints of 8 s clips, as unlike each other as simulated clips of one stage: pictures of a thousand scenes,
each in as many variants, and sounds that have nothing in common. A share of them are copies of others, with the damage
that encoding, cutting 0.5 s and mirroring do; some have lost their sound or show another picture. They are written to
the store that `check_data.py` uses, and then searched by the same function. Making them is not counted: real ones come
from decoding.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmaudio.evaluation.hygiene.fingerprint import (
    BANDS,
    CELLS,
    FPS,
    GRID,
    HOP,
    LAG,
    MOTION_LAG,
    PICTURE_BITS,
    SOUND_BITS,
    WINDOW,
    Fingerprint,
    mirrored_codes,
    mirrored_motion,
)
from mmaudio.evaluation.hygiene.looking import Facts, Look
from mmaudio.evaluation.hygiene.overlap import Codes, overlaps
from mmaudio.evaluation.hygiene.store import Store

SECONDS = 8.0
ONSETS = 4
SCENES = 1000
VARIANTS = 0.2  # share of the bits in which a picture differs from its scene's
# What copies suffer, as measured on Stage clips by encoding, cutting and brightening (docs/evaluation_hygiene.md).
LOST_ONSETS, SOUND_NOISE, PICTURE_NOISE = 0.3, 0.08, 0.06  # shares of onsets, and of bits
TRIT_NOISE = 0.2  # share of trits that are drawn again
KINDS = ("whole", "mirrored", "other sound", "other picture")
FACTS = Facts(SECONDS, SECONDS, -20.0, 0.0, 80.0, None, False)
TRIT_TABLE = np.array([-1] * 32 + [1] * 32 + [0] * 192, np.int8)  # a quarter is not 0
BLOCK = 1000


def trits(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return TRIT_TABLE[rng.integers(0, 256, shape, np.uint8)]


def flips(rng: np.random.Generator, rows: int, bits: int, share: float) -> np.ndarray:
    """uint8 (rows, bits / 8) in which this share of the bits is 1."""
    return np.packbits(rng.random((rows, bits), np.float32) < share, axis=1)


def originals(rng: np.random.Generator, count: int) -> Iterator[Fingerprint]:
    frames = int((SECONDS - WINDOW) / HOP) + 1 - LAG
    scenes = np.random.default_rng(0).integers(0, 256, (SCENES, PICTURE_BITS // 8), np.uint8)
    sound, motion = trits(rng, count, frames, BANDS), trits(rng, count, int(SECONDS * FPS) - MOTION_LAG, CELLS**2)
    pictures = rng.integers(0, 256, (count, GRID, GRID), np.uint8)
    sound_codes = rng.integers(0, 256, (count, ONSETS, SOUND_BITS // 8), np.uint8)
    picture_codes = scenes[rng.integers(0, SCENES, count)] ^ flips(rng, count, PICTURE_BITS, VARIANTS)
    for i in range(count):
        yield Fingerprint(sound[i], motion[i], pictures[i], sound_codes[i], picture_codes[i : i + 1])


def copy(rng: np.random.Generator, clip: Fingerprint, kind: str) -> Fingerprint:
    """What a copy of a clip, less its first half second, looks and sounds like."""
    other = next(originals(rng, 1))
    cut = (round(0.5 / HOP), round(0.5 * FPS))
    tracks = []
    for track, first in zip((clip.sound, clip.motion), cut, strict=True):
        noisy = np.where(rng.random(track.shape) < TRIT_NOISE, trits(rng, *track.shape), track)
        tracks.append(noisy[first:])
    sound, motion = tracks
    sound_codes = clip.sound_codes ^ flips(rng, ONSETS, SOUND_BITS, SOUND_NOISE)
    sound_codes = np.where(rng.random((ONSETS, 1)) < LOST_ONSETS, other.sound_codes, sound_codes)
    picture = np.clip(clip.picture + rng.normal(0, 10, clip.picture.shape), 0, 255).astype(np.uint8)
    picture_codes = clip.picture_codes ^ flips(rng, 1, PICTURE_BITS, PICTURE_NOISE)
    if kind == "mirrored":
        motion, picture, picture_codes = mirrored_motion(motion), picture[:, ::-1], mirrored_codes(picture_codes)
    if kind == "other sound":
        sound, sound_codes = other.sound, other.sound_codes
    if kind == "other picture":
        motion, picture, picture_codes = other.motion, other.picture, other.picture_codes
    return Fingerprint(sound, motion, picture, sound_codes, picture_codes)


def fill(store: Store, clips: int, share: float) -> dict[tuple[str, str], str]:
    """Write the fingerprints; (key, key of the copy) -> kind of the planted ones."""
    rng, planted = np.random.default_rng(1), {}
    with tqdm(total=clips, desc="make", unit="clip", disable=None) as bar:
        for first in range(0, clips, BLOCK):
            count = min(BLOCK, clips - first)
            copies = round(share * count)
            prints = list(originals(rng, count - copies))
            keys = [f"{rng.bytes(16).hex()} 0 30" for _ in range(count)]
            for i in range(copies):
                kind = KINDS[i % len(KINDS)]
                planted[keys[i], keys[count - copies + i]] = kind
                prints.append(copy(rng, prints[i], kind))
            store.add((key, Look(FACTS, clip)) for key, clip in zip(keys, prints, strict=True))
            bar.update(count)
    return planted


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.01, help="of them that are copies (default: %(default)g)")
    parser.add_argument("--work", type=Path, help="folder for the store, 4 kB a clip (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        store = Store(Path(folder) / "fingerprints.sqlite")
        planted = fill(store, args.clips, args.share)
        made = peak_gib()
        keys = sorted(store.keys())
        wall, cpu = time.perf_counter(), time.process_time()
        with tqdm(total=0, disable=None) as bar:

            def progress(what: str, done: int, total: int) -> None:
                bar.set_description(what, refresh=False)
                bar.total, bar.n = total, done
                bar.update(0)

            codes = Codes.read(store, keys)
            found = {(keys[i], keys[j]) for i, j, _ in overlaps(store, codes, codes, progress)}
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        store.close()
    hits = {pair: kind for pair, kind in planted.items() if pair in found or pair[::-1] in found}
    wanted, got = Counter(planted.values()), Counter(hits.values())
    figures = {
        "clips": args.clips,
        "planted": len(planted),
        "found": len(hits),
        "recall": len(hits) / max(1, len(planted)),
        "recall_by_kind": {kind: got[kind] / wanted[kind] for kind in wanted},
        "false_alarms": len(found) - len(hits),
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "peak_gib": round(peak_gib(), 2),
        "peak_gib_while_making": round(made, 2),
        "store_gib": round(size / 2**30, 2),
    }
    print(json.dumps(figures, indent=2))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
