"""Does a variant make the right sound at the right time? Measured on held-out Foley Stage clips, of which all is known.

    python scripts/evaluate_stage.py --variant tiny_16k --split test --count 200 --seed 0
    python scripts/evaluate_stage.py --count 20 --rows truth,ceiling,variant     # a quick look

Every clip is written as a video file and goes through the same pipeline as a user's, with its caption as the prompt.
Rows to compare with: the true sound; the true sound through VAE and vocoder, which no variant with this codec can be
expected to beat; the variant with another clip's video (it makes plausible sound but does not look), with words or
with the video alone; and the sound of the training clip whose video is most like this one to the variant's encoders.
Onsets are judged on clips whose every event is sharp and seen; kinds, materials, FD, KL and IS by the bundled judge.
Below each figure stands its 95 % bootstrap interval over clips. A stopped run goes on where it was: what takes long is
kept in --work, in files that are made anew when weights or settings change.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from mmaudio.console import error_line, expected_errors
from mmaudio.evaluation.judge import EMBEDDING, load_judge
from mmaudio.evaluation.stage_report import COLUMNS, Figure, table
from mmaudio.evaluation.stage_sounds import ROWS, Settings, Sounds, evaluate
from mmaudio.stage import SPLITS, split_seeds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k", help="a name, or the run folder or weight file of your own")
    parser.add_argument("--weights_dir", default=None)
    parser.add_argument("--split", default="test", choices=SPLITS, help="they share no seed")
    parser.add_argument("--count", type=int, default=200, help="clips")
    parser.add_argument("--duration", type=float, default=Settings.duration, help="seconds of each")
    parser.add_argument("--size", type=int, default=Settings.size, help="pixels of the rendered clips")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of the sampler, the same for every clip")
    parser.add_argument("--num_steps", type=int, default=Settings.num_steps)
    parser.add_argument("--cfg_strength", type=float, default=Settings.cfg_strength)
    parser.add_argument("--rows", default=",".join(ROWS), help="some of %(default)s")
    parser.add_argument("--retrieval", type=int, default=Settings.retrieval, help="training clips to choose from")
    parser.add_argument("--store", help="or all that are in a feature store of Stage clips")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluate_stage"))
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    args = parser.parse_args(argv)

    import mmaudio

    try:
        judge = load_judge()
        pipe = mmaudio.load(args.variant, weights_dir=args.weights_dir)
        settings = Settings(
            args.size, args.duration, args.seed, args.num_steps, args.cfg_strength, args.retrieval, args.store
        )
        sounds = Sounds(pipe, split_seeds(args.split, args.count), args.work, settings)
        found = {"split": args.split} | evaluate(sounds, judge, args.rows.split(","))
    except expected_errors() as error:
        print(error_line(error), file=sys.stderr)
        return 1
    if found["note"]:
        print(f"note: {found['note']}", file=sys.stderr)
    print(
        f"{found['variant']}, {args.split}, {args.count} clips of {args.duration:g} s; onsets: "
        f"{found['events_with_onsets']} events in {found['clips_with_onsets']} clips\n\n{table(found['rows'])}\n"
    )
    for name, meaning in COLUMNS.items():
        print(f"{name:9s} {meaning}")
    if args.count < EMBEDDING:
        print(f"FD is biased upwards: {args.count} clips are fewer than its {EMBEDDING} dimensions.")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(plain(found), indent=2) + "\n")
    return 0


def plain(found):
    """Figures to dicts and NaN to null."""
    if isinstance(found, Figure):
        return plain(vars(found))
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    return None if isinstance(found, float) and math.isnan(found) else found


if __name__ == "__main__":
    sys.exit(main())
