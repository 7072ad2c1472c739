"""Learned-query attention of QnA against the same attention over gathered windows.

A layer of QnA-ViT-tiny's first stage on maps for images of 224 x 224 (batch 4) and 800 x 1216, with
windows from 3 to 13.
"""

from collections.abc import Iterator

import torch

from hybrid_mm.benchmarks.core import Case, case_of_modules
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d

PACKAGES = ()
CHANNELS, HEADS = 64, 8
MAPS = ((4, 56, 56), (1, 200, 304))
WINDOWS = (3, 5, 7, 9, 13)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    for shape in ((2, 6, 7),) if quick else MAPS:
        for window in (3, 7) if quick else WINDOWS:
            yield _case(shape, window, device, dtype)


def _case(shape: tuple[int, ...], window: int, device: torch.device, dtype: torch.dtype) -> Case:
    torch.manual_seed(0)
    modules = {
        name: LearnedQueryAttention2d(CHANNELS, CHANNELS, HEADS, window, impl=impl)
        for name, impl in (('convolutions', 'tiled'), ('windows', 'reference'))
    }
    torch.nn.init.normal_(modules['convolutions'].scale)  # as trained; 0.02 would hide differences
    x = torch.randn(*shape, CHANNELS).to(device, dtype)
    title = f'window {window}, {"x".join(map(str, shape))}x{CHANNELS}'
    curve = dict(kernel_size=window) if shape[1] == 200 else {}
    return case_of_modules(title, modules, x, **curve)
