"""ELSA's ghost head in kernels: the weights of some pixels at a time, and sums over the taps.

Multiplications per pixel: D k^2 heads for the logits, on tensor cores, and (2 or 3) k^2 C for the
sums. The floor of memory is D + 2 C numbers per pixel forward and twice that backward. Between two
kernels the weights pass through memory, k^2 heads numbers per pixel in the type of the values (1.5
C in the networks), because sums over taps need them one by one with pixels side by side, products
all taps of a pixel in one program. They are not kept: the backward pass makes them again, together
with the gradients of their logits. Maps are read as (N, channels, pixels), whatever their memory
is; gradients are gathered, and those of parameters are sums of partial sums. Softmax and sums have
single precision.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.ghost_attention import tiled
from hybrid_mm.ops.ghost_attention.kernels import (
    filter_gradient,
    hidden_gradient,
    make_weights,
    product_gradient,
    sum_taps,
    weight_gradients,
)
from hybrid_mm.ops.kernels import launched, power_of_two, product_side
from hybrid_mm.ops.partial_sums import PartialSums
from hybrid_mm.ops.recompute import gradients

_PROGRAMS = 1024  # keep a GPU busy
_SUMS = 128  # partial sums of the gradient of a parameter at most


def _laid_out_like(x: Tensor) -> Tensor:
    """Memory for a map like (N, C, H, W), channels last if they are the closest there."""
    last = x.stride(1) < x.stride(3)
    return torch.empty_like(
        x, memory_format=torch.channels_last if last else torch.contiguous_format
    )


class _Sizes:
    """Sizes of an operator's maps, and of the programs that share them."""

    def __init__(self, hidden: Tensor, v: Tensor, heads: int, kernel_size: int) -> None:
        self.n, channels, self.height, self.width = v.shape
        self.count, self.heads, self.dim = self.height * self.width, heads, channels // heads
        self.channels, self.taps = hidden.shape[1], kernel_size**2
        self.pitch = -(-self.count // 16) * 16  # rows of weights begin where wide loads may
        room = product_side(self.taps)
        self.number = v.dtype if v.dtype in (torch.float16, torch.bfloat16) else torch.float32
        exact = self.number == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
        # without tensor cores a thread holds rows and columns of what it multiplies
        self.step = 16 if exact else room
        self.product: dict[str, Any] = dict(
            ROOM=room,
            CHANNELS=16 if exact else min(64, product_side(self.channels)),
            PIXELS=16 if exact else min(64, max(16, 4096 // room)),
            PRECISION='ieee' if exact else 'tf32',
            num_warps=4,
            num_stages=2,
        )
        width = power_of_two(self.dim)
        self.sums = dict(PIXELS=max(4, 1024 // width), DIM=width, num_warps=4)

    def weights(self, v: Tensor) -> Tensor:
        """Memory for weights (N, heads, k^2, pitch), of which H W are used."""
        return v.new_empty(self.n, self.heads, self.taps, self.pitch, dtype=self.number)

    def grid(self, pixels: int, parts: int) -> tuple[int, int, int]:
        """Programs of all images, each with some pixels and one of several parts."""
        return -(-self.count // pixels), parts, self.n


def _backward(
    grad: Tensor,
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> list[Tensor]:
    inputs = hidden, v, weight, bias, mul, add

    def run() -> list[Tensor]:
        size = _Sizes(hidden, v, heads, kernel_size)
        found = [_laid_out_like(x) for x in (hidden, v)]
        dy, h, values, dh, dv = (x.flatten(2) for x in (grad, hidden, v, *found))
        a, d = size.weights(v), size.weights(v)
        area = size.count, size.pitch, size.height, size.width, dilation
        product, sums = size.product, size.sums
        weight_gradients[size.grid(product['PIXELS'], heads)](
            h, weight, bias, dy, values, mul, a, d,
            *h.stride(), *weight.stride(), *dy.stride(), *values.stride(),
            heads, size.dim, size.channels, *area, SIZE=kernel_size, DIM=sums['DIM'], **product,
        )  # fmt: skip
        sum_taps[size.grid(sums['PIXELS'], heads)](
            a, dy, mul, add, dv, *dy.stride(), *dv.stride(),
            heads, size.dim, *area, SIZE=kernel_size, SIGN=-1, **sums,
        )  # fmt: skip
        blocks = -(-size.channels // product['CHANNELS'])
        hidden_gradient[size.grid(product['PIXELS'], blocks)](
            d, weight, h, dh, *weight.stride(), *h.stride(), *dh.stride(),
            heads, size.channels, size.count, size.pitch, TAPS=size.taps, STEP=size.step, **product,
        )  # fmt: skip
        return found + _parameter_gradients(size, a, d, dy, h, values, inputs[2:], dilation)

    def plain(*tensors: Any) -> Tensor:
        return tiled.attend(*(*tensors, heads, kernel_size, dilation))

    def otherwise() -> list[Tensor]:
        results = zip(_backward_fake(grad, *inputs), gradients(plain, inputs, grad), strict=True)
        return [x.copy_(y) for x, y in results]

    return launched('ghost_attention', run, otherwise)


def _parameter_gradients(
    size: _Sizes,
    a: Tensor,
    d: Tensor,
    dy: Tensor,
    h: Tensor,
    values: Tensor,
    parameters: tuple[Tensor | None, ...],
    dilation: int,
) -> list[Tensor]:
    """Gradients of W, b, and of the factors and summands that there are."""
    kernel_size = math.isqrt(size.taps)
    product = size.product | dict(PIXELS=min(32, size.product['PIXELS']))  # registers
    blocks = -(-size.channels // product['CHANNELS'])
    tiles = -(-size.count // product['PIXELS']) * size.n
    parts = max(1, min(tiles, _SUMS, _PROGRAMS // (size.heads * blocks)))
    sums = PartialSums(parameters, parts, h.device)
    stride = sums.memory.stride(0)
    product_gradient[parts, blocks, size.heads](
        d, h, sums.place(0), sums.place(1), *h.stride(), stride,
        size.heads, size.channels, size.count, size.pitch, tiles, -(-tiles // parts),
        TAPS=size.taps, **product,
    )  # fmt: skip
    mul, add = sums.place(2), sums.place(3)
    if mul is not None or add is not None:
        row, width = max(2, power_of_two(kernel_size)), power_of_two(size.dim)
        pixels = max(1, 2048 // (row * width))
        tiles = -(-size.count // pixels) * size.n
        filter_gradient[parts, kernel_size, size.heads](
            a, dy, values, mul, add, *dy.stride(), *values.stride(), stride,
            size.heads, size.dim, size.count, size.pitch, size.height, size.width, dilation,
            tiles, -(-tiles // parts),
            SIZE=kernel_size, ROW=row, PIXELS=pixels, DIM=width, num_warps=4,
        )  # fmt: skip
    return sums.total()


def _backward_fake(
    grad: Tensor,
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    *_: int,
) -> list[Tensor]:
    others = [x.new_empty(x.shape) for x in (weight, bias, mul, add) if x is not None]
    return [*(_laid_out_like(x) for x in (hidden, v)), *others]


@custom_op(
    'hybrid_mm::ghost_attention_triton',
    fake=lambda hidden, v, *_: torch.empty_like(v, memory_format=torch.channels_last),
    backward=_backward,
    backward_fake=_backward_fake,
)
def _attend(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    out = torch.empty_like(v, memory_format=torch.channels_last)

    def run() -> Tensor:
        size = _Sizes(hidden, v, heads, kernel_size)
        h, values, y = (x.flatten(2) for x in (hidden, v, out))
        a, product, sums = size.weights(v), size.product, size.sums
        make_weights[size.grid(product['PIXELS'], heads)](
            h, weight, bias, a, *h.stride(), *weight.stride(),
            heads, size.channels, size.count, size.pitch, TAPS=size.taps, **product,
        )  # fmt: skip
        sum_taps[size.grid(sums['PIXELS'], heads)](
            a, values, mul, add, y, *values.stride(), *y.stride(),
            heads, size.dim, size.count, size.pitch, size.height, size.width, dilation,
            SIZE=kernel_size, SIGN=1, **sums,
        )  # fmt: skip
        return out

    inputs = hidden, v, weight, bias, mul, add
    otherwise = functools.partial(tiled.attend, *inputs, heads, kernel_size, dilation)
    return launched('ghost_attention', run, lambda: out.copy_(otherwise()))


def attend(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """Attention of maps (N, D, H, W) to values (N, C, H, W); see the public function."""
    groups = hidden.shape[1] // weight.shape[1]
    if groups > 1:
        weight = torch.block_diag(*weight.chunk(groups))
    mul, add = (None if x is None else x.contiguous() for x in (mul, add))
    return _attend(hidden, v, weight, bias, mul, add, heads, kernel_size, dilation)
