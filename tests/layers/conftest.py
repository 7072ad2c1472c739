"""Algorithms that a layer has in C and in torch."""

import pytest
import torch


@pytest.fixture(params=['C', 'torch'])
def language(request, monkeypatch):
    """What an operator is done in; ``KERNEL`` of the file of the test is its module in C."""
    fused = request.module.KERNEL
    if request.param == 'torch':
        monkeypatch.setattr(fused, 'is_available', lambda *_: False)
    elif not fused.is_available(torch.device('cpu'), torch.float32):
        pytest.skip('no C compiler here')
