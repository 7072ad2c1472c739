"""ELSA: products of tiles against the published formulation, which unfolds the values.

The three stages of ELSA-Swin-T that have ELSA, on an 800 x 1216 image: window 7, no factors in the
ghost head; the second stage with factors as well. All weights are differentiated.
"""

import functools
from collections.abc import Iterator

import torch

from hybrid_mm.benchmarks.core import Case, case_of_modules
from hybrid_mm.layers.attention.elsa import ELSA

PACKAGES = ()
NAMES = {'reference': 'unfold (published)'}


# (C, heads, H, W, power of the factors)
STAGES = (
    (96, 3, 200, 304, 0),
    (192, 6, 100, 152, 0),
    (192, 6, 100, 152, 1),
    (384, 12, 50, 76, 0),
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    torch.manual_seed(0)
    quickly = ((12, 3, 9, 14, 0), (12, 3, 9, 14, 1))
    for dim, heads, height, width, lam in quickly if quick else STAGES:
        make = functools.partial(
            ELSA, dim, heads, 7, group_width=4, lam=lam, qk_scale=1, qkv_bias=True
        )
        modules = {NAMES.get(impl, impl): make(impl=impl) for impl in ('tiled', 'reference')}
        x = torch.randn(1, height, width, dim).to(device, dtype)
        factors = ', with factors' if lam else ''
        yield case_of_modules(f'window 7, 1x{dim}x{height}x{width}{factors}', modules, x)
