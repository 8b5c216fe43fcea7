"""Draw videos with their sound as pictures: frames above, spectrogram below, on one time axis.

    python scripts/filmstrip.py output/demo/silent.mp4 --out docs/images/demo.png

Several videos are drawn one below the other, so a generated sound can be laid beside the recorded one.
"""

import argparse
import sys
from pathlib import Path

import torch
from torchvision.io import write_png

from mmaudio.console import error_line, expected_errors
from mmaudio.evaluation.filmstrip import filmstrip
from mmaudio.media import read_audio, read_video

GAP = 12  # pixels between two videos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, help="video files with sound")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds from the beginning (default %(default)s)")
    parser.add_argument("--width", type=int, default=1600, help="pixels (default %(default)s)")
    args = parser.parse_args()
    if args.out.suffix != ".png":
        parser.error(f"--out must end in .png: got {args.out}")
    try:
        strips = [drawn(path, args.duration, args.width) for path in args.videos]
    except expected_errors() as error:
        print(error_line(error), file=sys.stderr)
        return 2
    gap = torch.full((3, GAP, args.width), 255, dtype=torch.uint8)
    picture = torch.cat([part for strip in strips for part in (strip, gap)][:-1], dim=1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_png(picture, str(args.out))
    return 0


def drawn(path: Path, duration: float, width: int) -> torch.Tensor:
    frames = read_video(path, duration, clip_transform=lambda frame: frame[:, :1, :1])
    sound, rate = read_audio(path, duration)
    return filmstrip(frames.sync, 25.0, sound, rate, width)


if __name__ == "__main__":
    sys.exit(main())
