"""Evolving attention in a few kernels that read and write whole maps of logits.

The floor is memory: with T tokens a layer reads the logits of the layer before and writes its own
(8 heads T^2 bytes per image forward); backward it reads both and the gradient of its own and
writes one. A convolution reads the maps of all heads around a pixel, a softmax whole rows, so that
not everything happens in one kernel. Forward: mixed logits, convolution, softmax with values (5
maps read or written); backward: mixed logits again, gradients through softmax and ReLU with those
of the values, through the convolution, of its weights, of queries and of keys (13 maps). Nothing of
that size is kept but the logits.

Products of half-precision queries, keys, values and gradients run on tensor cores, sums and logits
have single precision. The convolution is a product of the heads of a pixel with heads x heads
weights for each tap; in half precision its factors are rounded to TF32, whose numbers are as
accurate as those of float16.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.evolving_attention import programs, tiled
from hybrid_mm.ops.kernels import launched, product_side
from hybrid_mm.ops.positions import decomposed_logits
from hybrid_mm.ops.precision import accurate

_TILE = 32  # queries and keys of a tile of logits: larger ones spill registers
LONGEST = 128  # side of a map: gradients of its terms stay in registers
_PATCH = 4, 32  # queries and keys around which a program convolves
_LINE = 64  # keys of a query at a time in the gradient of the kernel
_CHUNKS = 128  # partial sums of that gradient


class _Launcher:
    """Launches kernels for queries, keys and values (N, heads, T, d) of one type."""

    def __init__(self, q: Tensor, v: Tensor, size: Sequence[int]) -> None:
        self.images, self.heads, self.tokens, channels = q.shape
        self.rows, self.columns = size
        self.map = self.images, self.heads, self.tokens, self.tokens
        self.like = accurate(q.new_empty(0))
        half = q.dtype in (torch.float16, torch.bfloat16)
        tf32 = torch.backends.cuda.matmul.allow_tf32
        self.precision = 'tf32' if tf32 else 'ieee'
        self.convolution = 'tf32' if tf32 or half else 'ieee'
        # factors of products without tensor cores take more registers
        self.line = _LINE if self.convolution == 'tf32' else _LINE // 2
        self.channels, self.value_channels = channels, v.shape[3]
        self.tiles = -(-self.tokens // _TILE)
        self.sizes = dict(PRECISION=self.precision, SIZE=_TILE, num_warps=4)

    def logits(self) -> Tensor:
        """Memory for logits."""
        return self.like.new_empty(self.map)

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        row: Tensor | None,
        column: Tensor | None,
        previous: Tensor | None,
        beta: float,
    ) -> Tensor:
        """Logits before they evolve, mixed with those of the layer before."""
        out = self.logits()
        programs.mix[self.tiles, self.tiles, self.images * self.heads](
            q, k, row, column, previous, out, *q.stride(), *k.stride(),
            self.heads, self.tokens, self.rows, self.columns, self.channels, beta,
            WIDTH=product_side(self.channels), **self.sizes,
        )  # fmt: skip
        return out

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        center: Tensor | None,
        factors: tuple[float, float],
        *,
        forward: bool,
        relu: bool,
    ) -> Tensor:
        """Convolution of logits; see the kernel."""
        out = self.logits()
        rows, columns = _PATCH
        grid = -(-self.tokens // rows), -(-self.tokens // columns), self.images
        programs.convolve[grid](
            x, weight, bias, center, out, self.heads, self.tokens, *factors,
            FORWARD=forward, RELU=relu, PRECISION=self.convolution,
            ROWS=rows, COLUMNS=columns, HEADS=product_side(self.heads), num_warps=4,
        )  # fmt: skip
        return out

    def evolved(self, mixed: Tensor, weight: Tensor, bias: Tensor | None, alpha: float) -> Tensor:
        """Logits of the layer."""
        center = None if alpha == 1 else mixed
        factors = alpha, 1 - alpha
        return self.convolve(mixed, weight, bias, center, factors, forward=True, relu=True)


def _shapes(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    n, heads, tokens = q.shape[:3]
    like = accurate(q.new_empty(0))
    out = v.new_empty(v.shape)
    return out, like.new_empty(n, heads, tokens, tokens), like.new_empty(n, heads, tokens)


def _backward(
    grad: Tensor | None,
    grad_logits: Tensor | None,
    grad_sums: Tensor | None,
    out: Tensor,
    logits: Tensor,
    sums: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    size: Sequence[int],
    alpha: float,
    beta: float,
) -> list[Tensor]:
    given = q, k, v, row, column, previous, weight, bias

    def run() -> list[Tensor]:
        kernels = _Launcher(q, v, size)
        passed, grad_v, convolved, up = kernels.logits(), v.new_empty(v.shape), None, None
        if previous is not None and weight is not None:
            mixed = kernels.mix(q, k, row, column, previous, beta)
            convolved = logits
            if alpha != 1:  # logits do not tell the sign of what they were before the ReLU
                up = kernels.logits()
                convolved = kernels.convolve(
                    mixed, weight, bias, None, (1, 0), forward=True, relu=False
                )
        strides = [(x if x is not None else logits).stride() for x in (grad, grad_logits)]
        programs.differentiate_logits[kernels.tiles, kernels.images * kernels.heads](
            logits, convolved, v, out, sums, grad, grad_logits, up, passed, grad_v,
            *v.stride(), *strides[0], *strides[1],
            kernels.heads, kernels.tokens, kernels.value_channels, alpha,
            WIDTH=product_side(kernels.value_channels), **kernels.sizes,
        )  # fmt: skip
        factor, evolved = 1.0, []
        if previous is not None and weight is not None and bias is not None:
            # the gradient of the logits before is that of the layer but for a factor
            scale, factor = (beta, (1 - beta) / beta) if beta else (1.0, 1.0)
            factors = scale, scale * (1 - alpha)
            evolved = _kernel_gradients(kernels, passed, mixed, weight, bias)
            passed = kernels.convolve(passed, weight, None, up, factors, forward=False, relu=False)
            evolved.insert(0, passed if beta else torch.zeros_like(passed))
        grad_q, grad_k, *terms = _product_gradients(kernels, passed, factor, q, k, row, column)
        return [grad_q, grad_k, grad_v, *terms, *evolved]

    def otherwise() -> list[Tensor]:
        tensors = grad, grad_logits, logits, *given
        arguments: Any = *(_exact(x) for x in tensors), size, alpha, beta
        found = tiled.differentiate(*arguments)
        types = [x.dtype for x in given if x is not None]
        return [x.to(dtype) for x, dtype in zip(found, types, strict=True)]

    return launched('evolving_attention', run, otherwise)


def _exact(x: Tensor | None) -> Tensor | None:
    return None if x is None else accurate(x).contiguous()


def _kernel_gradients(
    kernels: _Launcher, passed: Tensor, mixed: Tensor, weight: Tensor, bias: Tensor
) -> list[Tensor]:
    """Gradients of the kernel of the convolution and its bias, as sums of partial sums."""
    parts = passed.new_empty(_CHUNKS, *weight.shape)
    bias_parts = passed.new_empty(_CHUNKS, *bias.shape)
    programs.differentiate_kernel[3, _CHUNKS](
        passed, mixed, parts, bias_parts, kernels.images, kernels.heads, kernels.tokens,
        PRECISION=kernels.convolution, SIZE=kernels.line, WIDE=product_side(kernels.heads),
        HEADS=product_side(kernels.heads), num_warps=4,
    )  # fmt: skip
    return [parts.sum(0), bias_parts.sum(0)]


def _product_gradients(
    kernels: _Launcher,
    passed: Tensor,
    factor: float,
    q: Tensor,
    k: Tensor,
    row: Tensor | None,
    column: Tensor | None,
) -> list[Tensor]:
    """Gradients of queries, keys and the terms that there are."""
    grid = kernels.tiles, kernels.images * kernels.heads
    grad_q, grad_k = q.new_empty(q.shape), k.new_empty(k.shape)
    terms = [x.new_empty(x.shape) for x in (row, column) if x is not None]
    width = product_side(kernels.channels)
    programs.differentiate_queries[grid](
        passed, k, grad_q, *(terms or (None, None)), *k.stride(),
        kernels.heads, kernels.tokens, kernels.rows, kernels.columns, kernels.channels, factor,
        WIDTH=width, ROWS=product_side(kernels.rows), COLUMNS=product_side(kernels.columns),
        **kernels.sizes,
    )  # fmt: skip
    programs.differentiate_keys[grid](
        passed, q, grad_k, *q.stride(),
        kernels.heads, kernels.tokens, kernels.channels, factor, WIDTH=width, **kernels.sizes,
    )  # fmt: skip
    return [grad_q, grad_k, *terms]


@custom_op('hybrid_mm::evolving_attention_triton', fake=_shapes, backward=_backward, keep=[0, 1, 2])
def evolve(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    size: Sequence[int],
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Result, logits, and the logarithm of the sum of every row of the softmax.

    Args:
        q: Queries (N, heads, T, d).
        k: Keys (N, heads, T, d), of the same type as the queries.
        v: Values (N, heads, T, d_v), of this type as well.
        row: Terms by key row (N, heads, T, H), contiguous, or None.
        column: Terms by key column (N, heads, T, W), contiguous, or None.
        previous: Logits of the layer before (N, heads, T, T), float32 and contiguous, or None.
        weight: Kernel (heads, heads, 3, 3) with ``previous``, float32 and contiguous.
        bias: Its bias (heads,), with ``previous``.
        size: Height and width of the map, at most :data:`LONGEST`.
        alpha: Weight of the convolution.
        beta: Weight of the logits of the layer before.
    """

    def run() -> tuple[Tensor, Tensor, Tensor]:
        out, _, sums = _shapes(q, k, v)
        kernels = _Launcher(q, v, size)
        logits = kernels.mix(q, k, row, column, previous, beta)
        if weight is not None:
            logits = kernels.evolved(logits, weight, bias, alpha)
        programs.weigh[kernels.tiles, kernels.images * kernels.heads](
            logits, v, out, sums, *v.stride(),
            kernels.heads, kernels.tokens, kernels.value_channels,
            WIDTH=product_side(kernels.value_channels), **kernels.sizes,
        )  # fmt: skip
        return out, logits, sums

    def otherwise() -> tuple[Tensor, Tensor, Tensor]:
        tensors = q, k, v, row, column, previous, weight, bias
        arguments: Any = *(_exact(x) for x in tensors), size, alpha, beta
        out, logits = tiled.evolve(*arguments)
        return out.to(v.dtype), logits, logits.logsumexp(-1) / math.log(2)

    return launched('evolving_attention', run, otherwise)


def _table(rel: Tensor, side: int) -> Tensor:
    """Vectors of every query and key of an axis, (side, side, d)."""
    if len(rel) != 2 * side - 1:
        raise ValueError(f'{2 * side - 1} relative vectors expected, got {len(rel)}')
    return rel.unfold(0, side, 1).flip(0).transpose(1, 2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Result (N, heads, T, d_v) and logits (N, heads, T, T) of maps (N, heads, H, W, d)."""
    size = list(q.shape[2:4])
    row = column = None
    if rel_h is not None and rel_w is not None:
        tables = (_table(x.to(q.dtype), n) for x, n in zip((rel_h, rel_w), size, strict=True))
        row, column = (x.flatten(2, 3).contiguous() for x in decomposed_logits(q, *tables))
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    previous, weight, bias = (x if x is None else x.contiguous() for x in (previous, weight, bias))
    out, logits, _ = evolve(q, k, v, row, column, previous, weight, bias, size, alpha, beta)
    return out, logits
