"""What tests of kernels in C have in common; ``KERNEL`` is the module that a file tests."""

import pytest
import torch


@pytest.fixture(params=[1, 4])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def called(request, monkeypatch):
    """Filled with a name at every call of the kernel."""
    calls, fused = [], request.module.KERNEL
    for name in ('forward', 'backward'):
        plain = getattr(fused, name)
        monkeypatch.setattr(fused, name, lambda *a, f=plain, n=name: calls.append(n) or f(*a))
    return calls
