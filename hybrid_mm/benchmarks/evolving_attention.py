"""Evolving attention: the tiled algorithm against the published formulas and plain attention.

Widths are those of EA-AA-ResNet-50: 8 heads, queries of 4 channels in stage 2 and of 8 in stage 3.
A layer is in the middle of a chain: it gets logits from the previous layer and a gradient of its
own logits from the next, and everything is differentiated. A layer without evolution is compared
with plain attention, which keeps no logits, to show their cost. A chain is six layers (stage 3),
each of which passes its logits to the next.
"""

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hybrid_mm.benchmarks.core import Case
from hybrid_mm.benchmarks.local_attention import normal
from hybrid_mm.ops.evolving_attention import evolving_attention
from hybrid_mm.ops.local_attention import global_attention

PACKAGES = ()
HEADS, LAYERS = 8, 6


# (N, H, W, d, d_v): stage 2 of a batch of 224 x 224 pixels; stage 3 of a crop of 512 x 512, and of
# 800 x 1333, pooled to stay below the limit on tokens
SHAPES = ((8, 14, 14, 4, 2), (1, 32, 32, 8, 4), (1, 25, 42, 8, 4))
LARGE = (1, 50, 84, 4, 2)  # the last one without that limit


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    shapes = ((2, 4, 5, 3, 2),) if quick else SHAPES
    make = functools.partial(normal, torch.Generator().manual_seed(0), device, dtype)
    for shape in shapes if quick else (*shapes, LARGE):
        yield _layer(make, shape)
    for shape in shapes:
        yield _plain(make, shape)
    for shape in shapes:
        yield _chain(make, shape)


def _title(operator: str, shape: tuple[int, ...]) -> str:
    n, height, width, dim, _ = shape
    return f'{operator}, {n}x{HEADS}x{height}x{width}, d {dim}'


def _inputs(
    make: Callable[..., Tensor], shape: tuple[int, ...], layers: int = 1
) -> dict[str, Tensor]:
    n, height, width, dim, dim_v = shape
    maps = (layers * n, HEADS, height, width)
    inputs = {'q': make(*maps, dim, std=dim**-0.5), 'k': make(*maps, dim), 'v': make(*maps, dim_v)}
    inputs['rel_h'] = make(2 * height - 1, dim, std=dim**-0.5)
    inputs['rel_w'] = make(2 * width - 1, dim, std=dim**-0.5)
    return inputs


def _convolution(make: Callable[..., Tensor]) -> dict[str, Tensor]:
    # the bias keeps all logits off the kink of the ReLU, where rounding decides about the gradient;
    # its own gradient is left out: torch's sum over the largest map is off by 1e-3 in float32
    bias = make(HEADS, std=0.1).detach() + 10
    weight = make(HEADS, HEADS, 3, 3, std=0.3 * (9 * HEADS) ** -0.5)
    return dict(weight=weight, bias=bias)


def _layer(make: Callable[..., Tensor], shape: tuple[int, ...]) -> Case:
    """One layer; result and logits are one tensor, as both have a gradient."""
    tokens = shape[1] * shape[2]
    inputs = _inputs(make, shape) | _convolution(make)
    inputs['previous'] = make(shape[0], HEADS, tokens, tokens)

    def run(impl: str, **inputs: Tensor) -> Tensor:
        out, logits = evolving_attention(**inputs, impl=impl)
        # a sum over queries lets the gradient reach every logit, and is small itself
        return torch.cat([out.flatten(), logits.sum(2).flatten()])

    return Case(_title('layer', shape), inputs, _impls(run))


def _impls(run: Callable[..., Tensor]) -> dict[str, Callable[..., Tensor]]:
    names = dict(engine='tiled', formulas='reference')
    return {name: functools.partial(run, impl) for name, impl in names.items()}


def _plain(make: Callable[..., Tensor], shape: tuple[int, ...]) -> Case:
    """First layer of a chain, which does not evolve, against attention that keeps no logits."""
    inputs = _inputs(make, shape)

    def run(impl: str, **inputs: Tensor) -> Tensor:
        return evolving_attention(**inputs, impl=impl)[0]

    def plain(rel_h: Tensor, rel_w: Tensor, **inputs: Tensor) -> Tensor:
        return global_attention(**inputs, rel_h=rel_h[None], rel_w=rel_w[None], scale=1.0)

    candidates = _impls(run) | {'AA attention': plain}
    return Case(_title('without evolution', shape), inputs, candidates)


def _chain(make: Callable[..., Tensor], shape: tuple[int, ...]) -> Case:
    """Layers in sequence, each of which passes its logits to the next."""
    inputs = _inputs(make, shape, LAYERS) | _convolution(make)

    def run(impl: str, weight: Tensor, bias: Tensor, **inputs: Tensor) -> Tensor:
        tables = {name: inputs.pop(name) for name in ('rel_h', 'rel_w')}
        parts = [x.chunk(LAYERS) for x in inputs.values()]
        outs, state = [], {}
        for q, k, v in zip(*parts, strict=True):
            out, logits = evolving_attention(q, k, v, **tables, **state, impl=impl)
            outs.append(out)
            state = dict(previous=logits, weight=weight, bias=bias)
        return torch.cat(outs)

    return Case(_title(f'chain of {LAYERS}', shape), inputs, _impls(run))
