"""Types of autocast that are checked are those in which torch computes."""

import warnings

import torch

from hybrid_mm.compat.torch_api import half_types


def test_types_of_autocast():
    half_types.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.bfloat16 in half_types()
        for dtype in half_types():
            with torch.autocast('cpu', dtype):
                assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
