"""One rank of test_ranks.py: the runs named in a JSON file, one after the other, in one process group."""

import json
import sys
from pathlib import Path

import torch
from small import small_config, small_task

from mmaudio.training import loop
from mmaudio.training.distributed import ranks


def main(jobs: Path) -> None:
    torch.set_num_threads(1)
    with ranks("cpu", 60) as here:
        for folder, independent, settings in json.loads(jobs.read_text()):
            task = small_task(independent)
            loop.train(task, small_config(**settings), here, jobs.parent / folder, print if here.is_main else len)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
