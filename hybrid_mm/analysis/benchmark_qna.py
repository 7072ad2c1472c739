"""Learned-query attention of QnA beside the same attention over gathered windows.

A layer of QnA-ViT-tiny's first stage on maps for images of 224 x 224 (batch 4) and 800 x 1216, with
windows from 3 to 13.
"""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import functional_call

from hybrid_mm.analysis.benchmark import Case
from hybrid_mm.layers.learned_query_attention import LearnedQueryAttention2d

PACKAGES = ()
CHANNELS, HEADS = 64, 8
MAPS = ((4, 56, 56), (1, 200, 304))
WINDOWS = (3, 5, 7, 9, 13)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """The cases, made when they are asked for; ``quick`` ones are too small to tell anything."""
    for shape in ((2, 6, 7),) if quick else MAPS:
        for window in (3, 7) if quick else WINDOWS:
            yield _case(shape, window, device, dtype)


def _case(shape: tuple[int, ...], window: int, device: torch.device, dtype: torch.dtype) -> Case:
    torch.manual_seed(0)
    layer = LearnedQueryAttention2d(CHANNELS, CHANNELS, HEADS, window)
    torch.nn.init.normal_(layer.scale)  # as after training; 0.02 would hide differences
    weights = {
        name: parameter.detach().to(device, dtype).requires_grad_()
        for name, parameter in layer.named_parameters()
    }
    names = {name.replace('.', '_'): name for name in weights}
    x = torch.randn(*shape, CHANNELS, generator=torch.Generator().manual_seed(0))
    x = x.to(device, dtype).requires_grad_()

    def run(module: LearnedQueryAttention2d, x: Tensor, **weights: Tensor) -> Tensor:
        state = {names[name]: weight for name, weight in weights.items()}
        return functional_call(module, state, (x,))

    candidates = {}
    for name, impl in (('convolutions', 'engine'), ('windows', 'reference')):
        module = LearnedQueryAttention2d(CHANNELS, CHANNELS, HEADS, window, impl=impl)
        candidates[name] = functools.partial(run, module.to(device, dtype))
    inputs = {'x': x} | {short: weights[name] for short, name in names.items()}
    title = f'window {window}, {"x".join(map(str, shape))}x{CHANNELS}'
    curve = dict(kernel_size=window) if shape[1] == 200 else {}
    return Case(title, inputs, candidates, **curve)
