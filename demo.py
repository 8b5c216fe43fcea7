"""Sound for a silent video: `python demo.py --video clip.mp4 --prompt "..."`; the same as `mmaudio generate`."""

import sys

from mmaudio.cli import demo

if __name__ == "__main__":
    sys.exit(demo())
