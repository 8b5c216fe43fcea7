"""The same as `mmaudio evaluate`, for torchrun."""

import argparse
import sys

from mmaudio.cli import run
from mmaudio.evaluation.command import HELP, add_evaluate_arguments, evaluate_command


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_evaluate_arguments(parser)
    parser.set_defaults(run=evaluate_command)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
