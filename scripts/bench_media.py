"""Time and memory of reading frames from a long video, and of putting sound into it.

    python scripts/bench_media.py --seconds 60 --size 1920x1080

The video is made on the spot in a temporary folder. Reading runs in a process of its own, so that its peak memory is
its own: it includes Python, PyTorch and FFmpeg, but not the encoder that made the clip.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 30
SAMPLE_RATE = 44_100


def make_clip(path: Path, seconds: float, width: int, height: int) -> None:
    """Moving noise over a gradient: H.264 with B-frames at about the bit rate of a phone."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, width, dtype=np.uint8)
    texture = rng.integers(0, 56, (height, 2 * width), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "28", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(round(seconds * FPS)):
            shift = 4 * n % width
            grey = ramp + texture[:, shift : shift + width]
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def read(path: str) -> None:
    from mmaudio.features.frames import clip_frame, sync_frame
    from mmaudio.media import read_video

    begin = time.perf_counter()
    frames = read_video(path, clip_transform=clip_frame(384), sync_transform=sync_frame(224))
    wall = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = (frames.clip.nbytes + frames.sync.nbytes) / 2**20
    print(
        f"read_video: {frames.duration:.2f} s of {frames.width}x{frames.height} in {wall:.1f} s, "
        f"{len(frames.clip)} + {len(frames.sync)} frames ({held:.0f} MB), peak memory of the process {peak:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", default="1920x1080", help="WIDTHxHEIGHT")
    parser.add_argument("--read", metavar="FILE", help="only read this video and report (the process that is measured)")
    args = parser.parse_args()
    if args.read:
        return read(args.read)

    from mmaudio.media import mux

    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, args.seconds, width, height)
        print(f"clip: {args.seconds:g} s, {args.size}, {FPS} fps, {clip.stat().st_size / 2**20:.1f} MB", flush=True)
        subprocess.run([sys.executable, os.path.abspath(__file__), "--read", str(clip)], check=True)
        audio = np.random.default_rng(0).normal(0, 0.1, (1, round(args.seconds * SAMPLE_RATE))).astype(np.float32)
        begin = time.perf_counter()
        result = mux(clip, audio, SAMPLE_RATE, Path(folder) / "out.mp4")
        wall = time.perf_counter() - begin
        print(
            f"mux: {wall:.2f} s, pictures copied: {result.picture_copied}, {result.path.stat().st_size / 2**20:.1f} MB"
        )


if __name__ == "__main__":
    main()
