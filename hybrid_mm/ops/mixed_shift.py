"""The convolution path of ACmix: maps are mixed, shifted and added up.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), sections 3.1 and
4.1 to 4.3.
"""

import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op


class _Bands:
    """Bands of rows of an image, and where the taps of their pixels go.

    The value that tap (a, b) of a kernel has at a pixel belongs to the output (r - a, r - b) away,
    r being half of the kernel.
    """

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        dim, outputs, _, kernel, _ = weight.shape
        self.kernel, self.height, self.width = kernel, height, width
        row = dim * outputs * kernel**2 * width
        self.rows = budget.fitting(height, row, weight.device)

    def __iter__(self):
        for part in budget.chunks(self.height, self.rows):
            yield part.start, part.stop

    def taps(self, first: int, last: int):
        """Of every tap: its place, and the parts of the output and of the band that match."""
        half = self.kernel // 2
        for a in range(self.kernel):
            y = half - a
            top, bottom = max(0, first + y), min(self.height, last + y)
            for b in range(self.kernel):
                x = half - b
                left, right = max(0, x), min(self.width, self.width + x)
                if top < bottom and left < right:
                    rows = slice(top - y - first, bottom - y - first)
                    out = ..., slice(top, bottom), slice(left, right)
                    yield a, b, out, (..., rows, slice(left - x, right - x))


def _by_channel(x: Tensor) -> Tensor:
    """Maps (maps, d, H, W) with pixels side by side, as (maps, d, H * W)."""
    maps, dim, height, width = x.shape
    if x.stride(3) != 1:  # tokens: a plain transposition is the fastest way
        tokens = x.permute(2, 3, 0, 1).reshape(height * width, maps * dim)
        x = tokens.t().contiguous()
    return x.reshape(maps, dim, height * width)


def _mixed(x: Tensor, fc: Tensor, bias: Tensor | None) -> Tensor:
    """FC of the pixels of a band, (maps, d, L) to (d, taps, L)."""
    maps = torch.einsum('pm,mjl->jpl', fc, x)
    return maps if bias is None else maps + bias[:, None]


@custom_op('hybrid_mm::mix_and_shift')
def _mix_and_shift(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor) -> Tensor:
    """The path with stride 1.

    Args:
        x: (N, maps, d, H, W).
        fc: (taps, maps).
        bias: (taps,) or None.
        weight: (d, outputs, taps, k, k).

    Returns:
        (N, d * outputs, H, W).
    """
    n, _, dim, height, width = x.shape
    outputs, kernel = weight.shape[1], weight.shape[3]
    out = x.new_zeros(n, dim, outputs, height, width)
    matrix = weight.permute(0, 3, 4, 1, 2).flatten(1, 3)  # (d, k * k * outputs, taps)
    bands = _Bands(weight, height, width)
    with torch.autocast(x.device.type, enabled=False):
        for image, total in zip(x, out, strict=True):
            pixels = _by_channel(image)
            for first, last in bands:
                mixed = _mixed(pixels[..., first * width : last * width], fc, bias)
                values = torch.bmm(matrix, mixed)
                values = values.view(dim, kernel, kernel, outputs, last - first, width)
                for a, b, place, part in bands.taps(first, last):
                    total[place] += values[:, a, b][part]
    return out.flatten(1, 2)


@_mix_and_shift.register_fake
def _(x, fc, bias, weight):
    n, _, dim, height, width = x.shape
    return x.new_empty(n, dim * weight.shape[1], height, width)


@custom_op('hybrid_mm::mix_and_shift_backward')
def _backward(
    grad: Tensor, x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor
) -> list[Tensor]:
    maps, dim, height, width = x.shape[1:]
    _, outputs, taps, kernel, _ = weight.shape
    accurate = torch.float64 if x.dtype == torch.float64 else torch.float32
    matrix = weight.permute(0, 3, 4, 1, 2).flatten(1, 3)
    grad_x = torch.empty_like(x)
    grad_matrix = matrix.new_zeros(matrix.shape, dtype=accurate)
    grad_fc = fc.new_zeros(fc.shape, dtype=accurate)
    grad_bias = None if bias is None else bias.new_zeros(taps, dtype=accurate)
    bands = _Bands(weight, height, width)
    with torch.autocast(x.device.type, enabled=False):
        for image, up, down in zip(x, grad.unflatten(1, (dim, outputs)), grad_x, strict=True):
            pixels = _by_channel(image)
            for first, last in bands:
                values = up.new_zeros(dim, kernel, kernel, outputs, last - first, width)
                for a, b, place, part in bands.taps(first, last):
                    values[:, a, b][part] = up[place]
                values = values.view(dim, kernel**2 * outputs, -1)
                part = pixels[..., first * width : last * width]
                mixed = _mixed(part, fc, bias)
                grad_matrix += torch.bmm(values, mixed.transpose(1, 2))
                # (taps, d, L): the products with fc are plain ones then
                back = torch.bmm(matrix.transpose(1, 2), values).transpose(0, 1).contiguous()
                grad_fc += back.flatten(1) @ part.flatten(1).t()
                if grad_bias is not None:
                    grad_bias += back.sum((1, 2))
                back = (fc.t() @ back.flatten(1)).view(maps, dim, last - first, width)
                down[:, :, first:last] = back
    shape = (dim, kernel, kernel, outputs, taps)
    grad_weight = grad_matrix.view(shape).permute(0, 3, 4, 1, 2)
    found = [grad_x, grad_fc.to(fc.dtype), grad_weight.to(weight.dtype).contiguous()]
    return found if grad_bias is None else [*found, grad_bias.to(bias.dtype)]


@_backward.register_fake
def _(grad, x, fc, bias, weight):
    found = [torch.empty_like(x), fc.new_empty(fc.shape), weight.new_empty(weight.shape)]
    return found if bias is None else [*found, bias.new_empty(bias.shape)]


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad):
    x, fc, weight, *bias = _backward(grad.contiguous(), *ctx.saved_tensors)
    return x, fc, bias[0] if bias else None, weight


_mix_and_shift.register_autograd(_differentiate, setup_context=_setup_context)
