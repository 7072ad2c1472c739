"""Neighborhood attention at the sizes of NAT and DiNAT, against gathering, unfolding and NATTEN.

The stages of NAT-Tiny for images of 224 x 224 (batch 4) and 800 x 1216, windows of 7 with a
relative bias, without dilation and with the largest dilation of the paper in that stage.
"""

import functools
from collections.abc import Iterator

import torch

from hybrid_mm.benchmarks.core import Case
from hybrid_mm.benchmarks.local_attention import moving, normal

PACKAGES = ('natten',)
WINDOW = 7


# (N, heads, H, W), dilations
STAGES = (
    ((4, 2, 56, 56), (1, 8)),
    ((4, 4, 28, 28), (1, 4)),
    ((4, 8, 14, 14), (1, 2)),
    ((1, 2, 200, 304), (1, 28)),
    ((1, 4, 100, 152), (1, 14)),
    ((1, 8, 50, 76), (1, 7)),
    ((1, 16, 25, 38), (1, 3)),
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    make = functools.partial(normal, torch.Generator().manual_seed(0), device, dtype)
    for shape, dilations in (((1, 2, 12, 13), (1, 3)),) if quick else STAGES:
        for dilation in dilations:
            yield moving(make, shape, 3 if quick else WINDOW, dilation)
