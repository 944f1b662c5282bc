import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Numbers in these tests are those of one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
