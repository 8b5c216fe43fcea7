import os
import sys
from pathlib import Path

import pytest
import torch

REFERENCE = Path(__file__).parent / "data" / "reference"
sys.path.insert(0, str(REFERENCE))


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:  # several workers: threads that share a core only wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start
        torch.set_num_threads(1)
    else:
        torch.set_num_threads(min(2, os.cpu_count() or 1))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slow") and not os.environ.get("MMAUDIO_SLOW"):
            item.add_marker(pytest.mark.skip(reason="slow: set MMAUDIO_SLOW=1"))


@pytest.fixture(scope="session")
def kit():
    """The golden cases: filled weights, inputs and stored outputs."""
    from load import Kit

    return Kit(REFERENCE)
