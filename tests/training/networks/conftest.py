"""PyTorch on one thread, refusing what is not deterministic."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_deterministic_thread():
    """Small tensors are slower on several threads, above all where several tests run at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
