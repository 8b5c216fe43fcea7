"""Is the generated sound in time with the picture? Onset F1 on held-out Foley Stage clips, against shuffled videos.

    python scripts/evaluate_stage.py --count 100 --seed 42

Every clip is written as a video file, goes through the same pipeline as a user's, and the onsets heard in the result
are matched one to one with the contacts of its scene. The baseline pairs the same sounds with another clip's contacts:
it is what a model scores that makes plausible sound but does not look. Prompts are the clips' captions.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmaudio.evaluation.onsets import Matches, detect_onsets, match_onsets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k", help="a name, or the run folder or weight file of your own")
    parser.add_argument("--weights_dir", default=None)
    parser.add_argument("--split", default="test", help="train, val or test; they share no seed")
    parser.add_argument("--count", type=int, default=100, help="clips of 8 s")
    parser.add_argument("--size", type=int, default=224, help="pixels of the rendered clips")
    parser.add_argument("--seed", type=int, default=42, help="of the sampler, the same for every clip")
    parser.add_argument("--num_steps", type=int, default=25)
    parser.add_argument("--cfg_strength", type=float, default=4.5)
    parser.add_argument("--no_prompt", action="store_true", help="video alone, without the captions")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    args = parser.parse_args()
    if args.count < 2:
        parser.error("--count must be at least 2: the baseline pairs different clips")

    import mmaudio
    from mmaudio.stage import render_clip, split_seeds
    from mmaudio.stage.export import write_mp4

    pipe = mmaudio.load(args.variant, weights_dir=args.weights_dir)
    truth, heard, real = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in tqdm(split_seeds(args.split, args.count), disable=None):
            clip = render_clip(seed, size=args.size)
            path = Path(folder) / f"{seed}.mp4"
            write_mp4(path, clip)
            generation = pipe(
                video=path, prompt="" if args.no_prompt else clip.caption,
                seed=args.seed, num_steps=args.num_steps, cfg_strength=args.cfg_strength,
            )[0]  # fmt: skip
            path.unlink()
            truth.append(np.array([event.time for event in clip.events]))
            heard.append(detect_onsets(generation.audio[0].numpy(), generation.sample_rate))
            real.append(detect_onsets(clip.audio, clip.sample_rate))

    def score(sounds, tolerance, shift=0) -> float:
        events = truth[shift:] + truth[:shift]
        return sum((match_onsets(s, t, tolerance) for s, t in zip(sounds, events, strict=True)), Matches()).f1

    figures = {
        "variant": args.variant, "split": args.split, "clips": args.count, "seed": args.seed,
        "events": sum(map(len, truth)), "onsets_heard": sum(map(len, heard)),
    }  # fmt: skip
    shifts = range(1, min(args.count, 11))
    for milliseconds in (50, 100):
        tolerance = milliseconds / 1000
        figures[f"f1_{milliseconds}ms"] = score(heard, tolerance)
        figures[f"f1_{milliseconds}ms_shuffled"] = float(np.mean([score(heard, tolerance, s) for s in shifts]))
        figures[f"f1_{milliseconds}ms_true_sound"] = score(real, tolerance)
    for name, value in figures.items():
        print(f"{name:24s} {value:.3f}" if isinstance(value, float) else f"{name:24s} {value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
