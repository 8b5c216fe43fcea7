"""Is a long video as good as its parts, is there a seam, and what does it cost?

    python scripts/check_long.py                     # 65 s of joined Stage clips against the same clips one by one
    python scripts/check_long.py --minutes 10        # `mmaudio generate` with a video of that length: memory and time

Onsets: clips of nothing but sharp, seen events are joined to a video by copying their pictures. It gets its sound in
windows, each clip's caption being the words for its part, and every clip gets one of its own. The onsets of both are
held against the true times, clip by clip; intervals are bootstraps over clips.

Seams are looked for where windows of the solver, windows of the VAE and pieces of the vocoder begin, end and are
half-way from one to the next: by the step of the level between 0.1 s before and after, and by the click, the steepest
slope within 1 ms over the usual one around. Their means must not pass what as many moments in between have in 99.5 % of
draws. Would a seam be found? A fan is given its sound in windows and, 8 s at a time, alone; put end to end, the latter
must be found out: by a click, for of a hum that breaks off and goes on elsewhere the ear hears nothing else.

Exit code 1 if onset F1 falls by more than 5 %, a seam is found or none where there are some, a length is not exact, or
memory passes 2 GiB.
"""

import argparse
import csv
import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from mmaudio.console import log
from mmaudio.stage import StageClip, render_clip, split_seeds
from mmaudio.stage.export import write_mp4

WHOLE = 8.0  # seconds of a clip; the last one is as long as is left
SHORTEST = 1.0  # seconds of it
TOLERANCES = (0.05, 0.1)  # seconds
KEPT = 0.95  # share of the F1 of single clips that must be left
AROUND, STEEP, USUAL = 0.1, 0.001, 0.05  # seconds on either side of a moment: its level, its click, what is usual there
APART = 0.25  # seconds by which moments in between keep away from seams
DRAWS, USUALLY = 5000, 0.995  # and the share of them that says what is usual
MEMORY = 2048  # MiB


# ---- videos


def join(parts: list[Path], path: Path) -> None:
    """One video of the parts' pictures, which are copied; all must have been encoded alike."""
    with av.open(str(path), "w") as out:
        stream, offset = None, 0
        for part in parts:
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source, opaque=True)
                for packet in container.demux(source):
                    if packet.dts is not None:  # the last one is empty
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        out.mux(packet)
                offset += source.duration


def rendered(seed: int, seconds: float, size: int) -> StageClip:
    return render_clip(seed, duration=seconds, size=size, audio=False)


def sharp_clips(lengths: list[float]) -> list:
    """(seconds, `Known`) of test clips whose every event can be judged by its onset; each seed once."""
    from mmaudio.evaluation.stage_report import Known

    seeds, found = iter(split_seeds("test", 5000)), []
    for seconds in lengths:
        clips = (Known.of(render_clip(seed, duration=seconds, video=False, audio=False)) for seed in seeds)
        found.append((seconds, next(clip for clip in clips if len(clip.times))))
    return found


# ---- onsets


def heard(audio: np.ndarray, rate: int, clips: list, tolerance: float) -> list:
    """The `Matches` of every clip (seconds, Known) in the sound (N,) of all of them, one after the other."""
    from mmaudio.evaluation.onsets import detect_onsets, match_onsets

    found, matches, begin = detect_onsets(audio, rate), [], 0.0
    for seconds, clip in clips:
        own = found[(begin <= found) & (found < begin + seconds)] - begin
        matches.append(match_onsets(own, clip.times, tolerance))
        begin += seconds
    return matches


def f1(matches: list, rows) -> float:
    from mmaudio.evaluation.onsets import Matches

    return sum((matches[i] for i in rows), Matches()).f1


def check_onsets(pipe, args: argparse.Namespace, folder: Path) -> bool:
    """Prints F1 of the single clips and of the joined ones. Returns whether enough of it is left."""
    from mmaudio.evaluation.metrics import bootstrap_interval
    from mmaudio.segments import read_prompts

    rest, rate = args.seconds % WHOLE, pipe.variant.spec.sample_rate
    lengths = [WHOLE] * int(args.seconds // WHOLE) + ([rest] if rest >= SHORTEST else [])
    clips = sharp_clips(lengths * args.videos)
    matches: dict[str, list[list]] = {}  # row -> for each tolerance, of all clips

    def listen(row: str, audio: np.ndarray, own: list) -> None:
        for all_of_them, tolerance in zip(matches.setdefault(row, [[] for _ in TOLERANCES]), TOLERANCES, strict=True):
            all_of_them += heard(audio, rate, own, tolerance)

    good = True
    for number in range(args.videos):
        own = clips[number * len(lengths) : (number + 1) * len(lengths)]
        parts, alone, begin = [], [], 0.0
        words, film = folder / f"{number}.csv", folder / f"{number}.mp4"
        with words.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["start", "end", "prompt"])
            for seconds, clip in own:
                parts.append(folder / f"{clip.seed}.mp4")
                write_mp4(parts[-1], rendered(clip.seed, seconds, args.size))
                table.writerow([begin, begin + seconds, clip.caption])
                begin += seconds
                truth = render_clip(clip.seed, duration=seconds, sample_rate=rate, video=False).audio
                listen("true sound", truth, [(seconds, clip)])
                alone.append(make(pipe, args, parts[-1], prompt=clip.caption, seed=args.seed + len(alone)))
                listen("one by one", alone[-1], [(seconds, clip)])
        join(parts, film)
        spans = read_prompts(words)
        sound = make(pipe, args, film, segments=spans, seed=args.seed)
        listen("end to end", np.concatenate(alone), own)
        listen("in windows", sound, own)
        cuts = np.array([span.start for span in spans[1:]])
        good &= seamless(f"joined clips, {number + 1}", sound, rate, seams(pipe, film, spans), cuts)

    count = len(clips)
    events = sum(len(clip.times) for _, clip in clips)
    print(f"{pipe.variant.name}, {args.steps} steps, {args.videos} x {begin:g} s: {count} clips, {events} events")
    print("  onset F1         50 ms                100 ms")
    for row, found in matches.items():
        print(f"  {row:12s}" + "".join(f"  {f1(of_all, range(count)):.3f}" + 14 * " " for of_all in found))
    line = "  ratio       "
    for alone, windows in zip(matches["one by one"], matches["in windows"], strict=True):

        def ratio(rows, alone=alone, windows=windows) -> float:
            return f1(windows, rows) / f1(alone, rows) if f1(alone, rows) else float("nan")

        low, high = bootstrap_interval(ratio, count)
        good &= ratio(range(count)) >= KEPT
        line += f"  {ratio(range(count)):.3f} ({low:.2f}..{high:.2f})"
    print(line)
    return good


# ---- seams


def overlaps(windows, rate: float) -> list[float]:
    """Seconds at which neighbours begin to share, are half-way and end to share; `rate` is that of their frames."""
    pairs = itertools.pairwise(sorted(windows.starts))
    return [t / rate for a, b in pairs for t in (b, (a + b + windows.length) / 2, a + windows.length)]


def seams(pipe, video: Path, spans=()) -> np.ndarray:
    """All moments of a video made in windows at which something is joined to something."""
    from mmaudio import long
    from mmaudio.request import read_request

    request, spec = read_request(pipe.variant, video, segments=spans), pipe.variant.spec
    rate, mel_rate = spec.latent_rate, spec.sample_rate / spec.hop_length
    solver = long.plan_video(request.inputs, request.segments)
    decoder = long.plan(solver.total, solver.length, round(long.OVERLAP * rate))
    vocoder = long.plan(spec.mel_per_latent * solver.total, spec.mel_len, round(long.VOCODER_OVERLAP * mel_rate))
    return np.array(overlaps(solver, rate) + overlaps(decoder, rate) + overlaps(vocoder, mel_rate))


def steps(audio: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """dB by which the level before and after each moment differs."""
    square, width = audio.astype(np.float64) ** 2 + 1e-10, round(AROUND * rate)
    middles = np.rint(times * rate).astype(int)
    return np.array([abs(10 * np.log10(square[m : m + width].mean() / square[m - width : m].mean())) for m in middles])


def clicks(audio: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """The steepest slope at each moment over the root mean square of those around it."""
    slope, near, far = np.abs(np.diff(audio.astype(np.float64))), round(STEEP * rate), round(USUAL * rate)
    middles = np.rint(times * rate).astype(int)
    usual = [np.sqrt((slope[m - far : m + far] ** 2).mean() + 1e-12) for m in middles]
    return np.array([slope[m - near : m + near].max() for m in middles]) / usual


def seamless(name: str, audio: np.ndarray, rate: int, times: np.ndarray, cuts: np.ndarray | None = None) -> bool:
    """Whether these times sound as those in between do; prints the figures. The film's own cuts are left out."""
    cuts = np.zeros(0) if cuts is None else cuts

    def away(moments: np.ndarray, others: np.ndarray) -> np.ndarray:
        borders = np.array([0.0, len(audio) / rate, *others])
        return moments[np.abs(moments[:, None] - borders).min(1) > APART]

    at, rng, good = away(times, cuts), np.random.default_rng(0), True
    between = away(np.arange(0, len(audio) / rate, 0.02), np.append(times, cuts))
    for what, measure in (("level step, dB", steps), ("click", clicks)):
        found, usual = measure(audio, rate, at).mean(), measure(audio, rate, between)
        limit = np.quantile(rng.choice(usual, (DRAWS, len(at))).mean(1), USUALLY)
        good &= bool(found <= limit)
        print(f"  {name}, {what}: {found:.2f} at {len(at)} seams, {usual.mean():.2f} in between (up to {limit:.2f})")
    return good


def check_seams(pipe, args: argparse.Namespace, folder: Path) -> bool:
    """One fan in windows, and 8 s at a time: only the latter may have seams."""
    count, rate = int(args.seconds // WHOLE), pipe.variant.spec.sample_rate
    (seed,) = split_seeds("test", 1)
    clip = render_clip(seed, duration=count * WHOLE, size=args.size, audio=False, family="fan")
    film, frames, alone = folder / "fan.mp4", round(WHOLE * clip.fps), []
    write_mp4(film, clip)
    whole = make(pipe, args, film, prompt=clip.caption, seed=args.seed)
    for k in range(count):
        part = folder / f"fan_{k}.mp4"
        write_mp4(part, dataclasses.replace(clip, video=clip.video[k * frames : (k + 1) * frames]))
        alone.append(make(pipe, args, part, prompt=clip.caption, seed=args.seed + k))
    good = seamless("fan in windows", whole, rate, seams(pipe, film))
    found_out = not seamless("fan, end to end", np.concatenate(alone), rate, WHOLE * np.arange(1, count))
    if not found_out:
        print("  the concatenation has no seam that could be found: this says nothing about the windows either")
    return good and found_out


def make(pipe, args: argparse.Namespace, video: Path, **options) -> np.ndarray:
    """The sound (N,) of a video; SystemExit if it is not exactly as long."""
    from mmaudio.media import probe

    began, seconds = time.monotonic(), probe(video).duration
    take = pipe(video=video, num_steps=args.steps, **options)[0]
    if take.audio.shape[1] != round(seconds * take.sample_rate):
        raise SystemExit(f"{video.name}: {seconds} s of video, {take.audio.shape[1]} samples at {take.sample_rate} Hz")
    log(f"{video.name}: {seconds:.1f} s in {time.monotonic() - began:.1f} s")
    return take.audio[0].numpy()


# ---- memory and time


def check_cost(args: argparse.Namespace) -> bool:
    """The command on a video of so many minutes, in a process of its own."""
    import soundfile

    with tempfile.TemporaryDirectory() as name:
        folder, parts = Path(name), []
        for seed in split_seeds("test", 8):
            parts.append(folder / f"{seed}.mp4")
            write_mp4(parts[-1], rendered(seed, WHOLE, args.size))
        count = max(1, round(60 * args.minutes / WHOLE))
        join(list(itertools.islice(itertools.cycle(parts), count)), folder / "long.mp4")
        code = "import sys; from mmaudio.cli import main; sys.exit(main())"
        options = ["--prompt", "things that fall and strike", "--num_steps", str(args.steps), "--seed", str(args.seed)]
        target = ["--variant", args.variant, "--device", "cpu", "--output", str(folder / "out")]
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "generate", "--video", str(folder / "long.mp4"), *options, *target],
            stdout=subprocess.DEVNULL,
        )
        # A child's peak is at least its parent's when it was started: nothing here may load torch before.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode, took = os.waitstatus_to_exitcode(status), time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"the command failed: exit code {process.returncode}")
        sound = soundfile.info(folder / "out" / "long.flac")
        wanted, memory = round(count * WHOLE * sound.samplerate), usage.ru_maxrss // 1024
        print(
            f"{args.variant}, {args.steps} steps, {count * WHOLE / 60:.2f} min at {args.size} px: {took:.0f} s "
            f"({usage.ru_utime + usage.ru_stime:.0f} s of CPU), peak {memory} MiB; "
            f"{sound.frames} samples, {wanted} wanted"
        )
        return memory < MEMORY and sound.frames == wanted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=None, help="measure memory and time of so long a video instead"
    )
    parser.add_argument("--seconds", type=float, default=65.0, help="of a joined video")
    parser.add_argument("--videos", type=int, default=3, help="joined videos, each of other clips")
    parser.add_argument("--variant", default="tiny_16k")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--seed", type=int, default=42, help="of the sampler")
    args = parser.parse_args()
    if args.seconds < 2 * WHOLE:
        parser.error(f"--seconds {args.seconds:g}: at least {2 * WHOLE:g}, or nothing is made in windows")
    if args.minutes is not None:
        good = check_cost(args)
    else:
        import mmaudio

        pipe = mmaudio.load(args.variant, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            good = check_onsets(pipe, args, Path(folder))
            good &= check_seams(pipe, args, Path(folder))
    print("good" if good else "NOT good")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
