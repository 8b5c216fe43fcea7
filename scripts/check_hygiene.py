"""Does the data check find what is wrong, and leave alone what is not? On Foley Stage clips with planted faults.

    python scripts/check_hygiene.py --count 1000 --each 40 --work output/check_hygiene

`distinct` are clips of different seeds: whatever is found among them is a false alarm. `planted` are copies of some of
them under other ids (encoded again at low quality, cut by 0.5 s, volume changed, mirrored, all of it), whose captions
are shifted by a row or swapped in part, and files that are silent, clipped, frozen, short, cut off or no media at all.
Stage clips are hard: they share families, landscapes and a steady hiss.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soundfile
from tqdm import tqdm

from mmaudio.evaluation.hygiene.check import Settings, check_sets
from mmaudio.evaluation.hygiene.report import Report, write_report
from mmaudio.evaluation.hygiene.sets import ClipSet, read_set
from mmaudio.evaluation.hygiene.store import Store
from mmaudio.media import read_audio, read_video
from mmaudio.media.video import SYNC_FPS
from mmaudio.stage import SPLITS, split_seeds
from mmaudio.stage.export import export, replacing

CUT = 0.5  # seconds
QUIETER = 0.3  # gain
SIZE, RATE = 64, 16000
LOW_QUALITY = {"crf": 30, "bit_rate": 32_000}
GOOD_QUALITY = {"crf": 20, "bit_rate": 64_000}


@dataclass(frozen=True)
class Wanted:
    """What has to be found of a planted clip."""

    kind: str  # of planting
    original: str
    findings: dict[str, str] = field(default_factory=dict)  # finding -> id that it has to name, "" for any


def read_clip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) uint8 and sound (N,) float32."""
    frames = read_video(path, rule="nearest", clip_transform=lambda frame: frame[:, :1, :1]).sync
    return frames.permute(0, 2, 3, 1).numpy(), read_audio(path)[0].mean(0).numpy()


def write_clip(path: Path, frames: np.ndarray, sound: np.ndarray | None, crf: int = 20, bit_rate: int = 64_000) -> None:
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=SYNC_FPS, options={"crf": str(crf), "preset": "veryfast"})
        picture.height, picture.width, picture.pix_fmt, picture.thread_count = *frames.shape[1:3], "yuv420p", 1
        track = None if sound is None else container.add_stream("aac", rate=RATE, layout="mono")
        for image in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(picture.encode(None))
        if track is not None:
            track.bit_rate = bit_rate
            samples = av.AudioFrame.from_ndarray(sound.clip(-1, 1)[None].astype(np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = RATE, 0
            container.mux(track.encode(samples))
            container.mux(track.encode(None))


# ---- what is planted: each takes the path of a clip and writes another file


def encoded_again(source: Path, path: Path) -> None:
    write_clip(path, *read_clip(source), **LOW_QUALITY)


def cut(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    write_clip(path, frames[round(CUT * SYNC_FPS) :], sound[round(CUT * RATE) :], **GOOD_QUALITY)


def quieter(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    write_clip(path, frames, QUIETER * sound, **GOOD_QUALITY)


def mirrored(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    write_clip(path, frames[:, :, ::-1], sound, **GOOD_QUALITY)


def all_of_it(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    frames = (0.8 * frames[round(CUT * SYNC_FPS) :, :, ::-1]).astype(np.uint8)  # darker, too
    write_clip(path, frames, QUIETER * sound[round(CUT * RATE) :], **LOW_QUALITY)


def silent(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    write_clip(path, frames, np.zeros_like(sound))


def clipped(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    loud = np.quantile(np.abs(sound), 0.95)
    write_clip(path, frames, sound / max(loud, 1e-4))


def still(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    write_clip(path, np.repeat(frames[:1], len(frames), axis=0), sound)


def short(source: Path, path: Path) -> None:
    frames, sound = read_clip(source)
    write_clip(path, frames[:10], sound[: round(0.4 * RATE)])


def without_sound(source: Path, path: Path) -> None:
    write_clip(path, read_clip(source)[0], None)


def cut_off(source: Path, path: Path) -> None:
    data = source.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def no_media(source: Path, path: Path) -> None:
    path.write_text(f"<html>{source.name} is not available in your country</html>")


def sound_in_disguise(source: Path, path: Path) -> None:
    soundfile.write(path, read_clip(source)[1], RATE, format="WAV")


def not_a_number(source: Path, path: Path) -> None:
    sound = read_clip(source)[1]
    sound[len(sound) // 2] = np.nan
    soundfile.write(path, sound, RATE, subtype="FLOAT")


Plant = Callable[[Path, Path], None]
COPIES: tuple[Plant, ...] = (encoded_again, cut, quieter, mirrored, all_of_it)
BROKEN: dict[Plant, str] = {
    silent: "silent", clipped: "clipped", still: "still", short: "short", without_sound: "no sound",
    cut_off: "unreadable", no_media: "unreadable", sound_in_disguise: "no picture", not_a_number: "unreadable",
}  # fmt: skip


def plant(distinct: ClipSet, folder: Path, each: int) -> tuple[Path, dict[str, Wanted]]:
    """(Manifest, id -> what has to be found). Files that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    items = distinct.items
    kinds = [kind for kind in COPIES for _ in range(each)]
    rows, wanted = [], {}
    plants = [(kind, items[i], items[k]) for i, (kind, k) in enumerate(zip(kinds, misplaced(len(kinds)), strict=True))]
    broken = [kind for kind in BROKEN for _ in range(each)]
    plants += [(kind, item, item) for kind, item in zip(broken, items[len(kinds) + 1 :], strict=False)]
    for number, (kind, item, other) in enumerate(tqdm(plants, desc="plant", unit="clip", disable=None)):
        name = f"copy_{number:05d}"
        path = folder / f"{name}{'.wav' if kind is not_a_number else '.mp4'}"
        if not path.exists():
            kind(item.path, path)
        rows.append(f"{name}\t{path.name}\t{other.caption}\n")
        findings = {"overlap": item.id} if kind in COPIES else {BROKEN[kind]: ""}
        if other.caption != item.caption:
            shifted = number < shifted_rows(len(kinds))
            findings["caption shifted" if shifted else "caption swapped"] = other.id
        wanted[name] = Wanted(kind.__name__, item.id, findings)
    manifest = folder / "manifest.tsv"
    manifest.write_text("id\tpath\tcaption\n" + "".join(rows))
    return manifest, wanted


def shifted_rows(count: int) -> int:
    return count * 3 // 5


def misplaced(count: int) -> list[int]:
    """Whose caption each has: the first three fifths the next one's; of the others some pairs have changed places."""
    shifted = shifted_rows(count)
    found = [*range(1, shifted + 1), *range(shifted, count)]
    for i in range(shifted + 2, count - 1, 8):
        found[i], found[i + 1] = found[i + 1], found[i]
    return found


def judge(report: Report, wanted: dict[str, Wanted]) -> dict:
    """Figures: found of planted by kind, and everything else that was found."""
    found = {(f.id, f.kind): f.other_id for f in report.findings}
    planted, hits, missed, expected = Counter(), Counter(), [], set()
    for name, want in wanted.items():
        for finding, other in want.findings.items():
            label = want.kind if not finding.startswith("caption") else finding
            planted[label] += 1
            got = found.get((name, finding))
            if got is not None and other in ("", got):
                hits[label] += 1
                expected.add((name, finding))
            else:
                missed.append(f"{name}: {label} ({got or 'not found'})")
        if found.get((name, "overlap")) == want.original:  # a broken copy is a copy
            expected.add((name, "overlap"))
    alarms = [f"{name}: {kind} ({other})" for (name, kind), other in found.items() if (name, kind) not in expected]
    return {
        "planted": planted.total(),
        "found": hits.total(),
        "share": round(hits.total() / planted.total(), 4),
        "by_kind": {label: f"{hits[label]} of {planted[label]}" for label in planted},
        "false_alarms": len(alarms),
        "missed": missed,
        "alarms": alarms,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="distinct clips (default: %(default)s)")
    parser.add_argument("--each", type=int, default=40, help="planted ones of each kind (default: %(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="whose seeds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the clips (default: %(default)g)")
    parser.add_argument("--work", type=Path, default=Path("output/check_hygiene"), help="folder, kept for the next run")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    if args.count <= (copied := args.each * (len(COPIES) + len(BROKEN))):
        parser.error(f"--count must be above {copied}, so many are copied")
    rendering = {"size": SIZE, "duration": args.seconds, "sample_rate": RATE}
    seeds = split_seeds(args.split, args.count)
    export(seeds, args.work / "distinct", split=args.split, workers=args.workers, **rendering)
    distinct = read_set("distinct", args.work / "distinct" / "manifest.tsv")
    manifest, wanted = plant(distinct, args.work / "planted", args.each)
    sets = [distinct, read_set("planted", manifest)]
    store = Store(args.work / "fingerprints.sqlite")
    report = check_sets(sets, [], store, Settings(workers=args.workers))
    store.close()
    write_report(args.work, sets, report)
    figures = judge(report, wanted)
    (args.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 0 if figures["share"] >= 0.95 and not figures["false_alarms"] else 1


if __name__ == "__main__":
    sys.exit(main())
