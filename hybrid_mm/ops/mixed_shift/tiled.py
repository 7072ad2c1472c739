"""The convolution path of ACmix in C on CPUs, or as products of a few rows at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.mixed_shift import convolution, fused
from hybrid_mm.ops.mixed_shift.reference import shift
from hybrid_mm.ops.precision import accurate_dtype

_MOST = 8  # outputs per channel up to which products beat a grouped convolution
_FEW = 100  # pixels of the output below which that is so in C as well


def mix(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int) -> Tensor:
    """Mix maps (N, M, d, H, W) to (N, d * n, H', W'); see the public function."""
    dim, (height, width) = x.shape[2], x.shape[3:]
    outputs = len(weight) // dim
    if _joined(x, outputs, stride):
        bias = None if bias is None else bias.to(x.dtype)
        weight = weight.unflatten(0, (dim, -1)).to(x.dtype)
        return mix_and_shift(x, fc.to(x.dtype), bias, weight, stride)
    if stride == 1 and len(x):
        mixed = torch.stack([_mixed(_by_channel(image), fc, bias) for image in x])
        return shift(mixed.reshape(len(x), -1, height, width), weight, dim, stride)
    return convolution.mix(x, fc, bias, weight, stride)


def _joined(x: Tensor, outputs: int, stride: int) -> bool:
    """Whether to mix and shift in one, without keeping mixed maps."""
    if fused.is_available(x.device, x.dtype):
        return outputs <= _MOST or x.shape[3] * x.shape[4] >= _FEW * stride**2
    return stride == 1 and outputs <= _MOST


def _by_channel(x: Tensor) -> Tensor:
    """Maps (M, d, H, W) with pixels side by side, as (M, d, H * W)."""
    maps, dim, height, width = x.shape
    if x.stride(3) != 1:  # tokens: a plain transposition is the fastest way
        tokens = x.permute(2, 3, 0, 1).reshape(height * width, maps * dim)
        x = tokens.t().contiguous()
    return x.reshape(maps, dim, height * width)


def _mixed(x: Tensor, fc: Tensor, bias: Tensor | None) -> Tensor:
    """Mix pixels (M, d, L) to (d, P, L)."""
    maps = torch.einsum('pm,mjl->jpl', fc, x)
    return maps if bias is None else maps + bias[:, None]


class _Tap(NamedTuple):
    """A tap of the kernel: its row and column, and the parts of the output and chunk that match."""

    row: int
    column: int
    output: tuple
    chunk: tuple


class _Rows:
    """Chunks of rows of an image, and where the taps of their pixels go.

    The value that tap (a, b) of a kernel has at a pixel belongs to the output (r - a, r - b) away,
    r being half of the kernel.
    """

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        dim, outputs, _, self.kernel, _ = weight.shape
        self.height, self.width = height, width
        row = dim * outputs * self.kernel**2 * width
        self.rows = budget.fitting(height, row, weight.device)

    def __iter__(self) -> Iterator[slice]:
        yield from budget.chunks(self.height, self.rows)

    def pixels(self, rows: slice) -> slice:
        """Pixels of rows."""
        return slice(rows.start * self.width, rows.stop * self.width)

    def taps(self, rows: slice) -> Iterator[_Tap]:
        """Taps that lead from the rows of a chunk into the image."""
        half = self.kernel // 2
        for a in range(self.kernel):
            y = half - a
            top, bottom = max(0, rows.start + y), min(self.height, rows.stop + y)
            for b in range(self.kernel):
                x = half - b
                left, right = max(0, x), min(self.width, self.width + x)
                if top < bottom and left < right:
                    own = slice(top - y - rows.start, bottom - y - rows.start)
                    output = ..., slice(top, bottom), slice(left, right)
                    yield _Tap(a, b, output, (..., own, slice(left - x, right - x)))


def _matrix(weight: Tensor) -> Tensor:
    """Weights (d, n, P, k, k) as matrices (d, k * k * n, P)."""
    return weight.permute(0, 3, 4, 1, 2).flatten(1, 3)


def _backward(
    grad: Tensor, x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int
) -> list[Tensor]:
    if fused.is_available(x.device, x.dtype):
        of_x, of_fc, of_bias, of_weight = fused.backward(grad, x, fc, bias, weight, stride)
        strided = torch.empty_like(x)
        of_x = of_x if strided.is_contiguous() else strided.copy_(of_x)
        return [of_x, of_fc, *([] if of_bias is None else [of_bias]), of_weight]
    maps, dim, height, width = x.shape[1:]
    _, outputs, taps, kernel, _ = weight.shape
    dtype = accurate_dtype(x.dtype)
    matrix = _matrix(weight)
    grad_x = torch.empty_like(x)
    grad_matrix, grad_fc = (t.new_zeros(t.shape, dtype=dtype) for t in (matrix, fc))
    grad_bias = fc.new_zeros(taps, dtype=dtype)
    chunks = _Rows(weight, height, width)
    if stride > 1:
        whole = grad.new_zeros(*grad.shape[:2], height, width)
        whole[..., ::stride, ::stride] = grad
        grad = whole
    upper = grad.contiguous().unflatten(1, (dim, outputs))
    for image, up, down in zip(x, upper, grad_x, strict=True):
        pixels = _by_channel(image)
        for rows in chunks:
            count = rows.stop - rows.start
            values = up.new_zeros(dim, kernel, kernel, outputs, count, width)
            for tap in chunks.taps(rows):
                values[:, tap.row, tap.column][tap.chunk] = up[tap.output]
            values = values.view(dim, kernel**2 * outputs, -1)
            part = pixels[..., chunks.pixels(rows)]
            grad_matrix += torch.bmm(values, _mixed(part, fc, bias).transpose(1, 2))
            # (P, d, L): the products with fc are plain ones then
            back = torch.bmm(matrix.transpose(1, 2), values).transpose(0, 1).contiguous()
            grad_fc += back.flatten(1) @ part.flatten(1).t()
            grad_bias += back.sum((1, 2))
            down[:, :, rows] = (fc.t() @ back.flatten(1)).view(maps, dim, count, width)
    shape = (dim, kernel, kernel, outputs, taps)
    grad_weight = grad_matrix.view(shape).permute(0, 3, 4, 1, 2)
    return [
        grad_x,
        grad_fc.to(fc.dtype),
        *([] if bias is None else [grad_bias.to(bias.dtype)]),
        grad_weight.to(weight.dtype).contiguous(),
    ]


def _backward_fake(
    grad: Tensor, x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int
) -> list[Tensor]:
    others = [t.new_empty(t.shape) for t in (fc, bias, weight) if t is not None]
    return [torch.empty_like(x), *others]


def _fake(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int) -> Tensor:
    size = ((length + stride - 1) // stride for length in x.shape[3:])
    return x.new_empty(len(x), x.shape[2] * weight.shape[1], *size)


@custom_op('hybrid_mm::mix_and_shift', fake=_fake, backward=_backward, backward_fake=_backward_fake)
def mix_and_shift(
    x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int
) -> Tensor:
    """The path without mixed maps that are kept; without the kernel in C a stride saves no work.

    Args:
        x: (N, M, d, H, W).
        fc: (P, M).
        bias: (P,) or None.
        weight: (d, n, P, k, k).
        stride: Distance of the outputs in pixels.

    Returns:
        (N, d * n, H', W').
    """
    if fused.is_available(x.device, x.dtype):
        return fused.forward(x, fc, bias, weight, stride)
    n, _, dim, height, width = x.shape
    outputs, kernel = weight.shape[1], weight.shape[3]
    out = x.new_zeros(n, dim, outputs, height, width)
    matrix = _matrix(weight)
    chunks = _Rows(weight, height, width)
    for image, total in zip(x, out, strict=True):
        pixels = _by_channel(image)
        for rows in chunks:
            mixed = _mixed(pixels[..., chunks.pixels(rows)], fc, bias)
            values = torch.bmm(matrix, mixed)
            values = values.view(dim, kernel, kernel, outputs, rows.stop - rows.start, width)
            for tap in chunks.taps(rows):
                total[tap.output] += values[:, tap.row, tap.column][tap.chunk]
    return out.flatten(1, 2)[..., ::stride, ::stride].contiguous()
