import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Toy networks gain nothing from a second thread, and where cores are shared they wait for it: ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
