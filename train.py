"""Train from the command line: `python train.py --help`, or under torchrun. See docs/training.md."""

from mmaudio.training.command import main

if __name__ == "__main__":
    main()
