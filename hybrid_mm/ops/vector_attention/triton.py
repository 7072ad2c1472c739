"""The weighted sum of taps in one kernel each for the result and the two gradients.

N C k^2 H' W' multiplications each. The floor is memory: weights, values and result are read or
written once, G k^2 + 2 C numbers per pixel, of which the weights are most. A program has some
pixels and all C / G channels that share a weight: it reads every weight once and keeps the sums in
registers; neighbouring taps find the values in the first cache. Gradients are gathered, the one of
the values from all the windows that see a pixel. Sums have single precision.
"""

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.kernels import kernel, launched, power_of_two, tl
from hybrid_mm.ops.vector_attention import tiled

_BLOCK = 1024  # sums of a program, 8 in every thread


@kernel
def _channels(groups, share, GROUPS: tl.constexpr, SHARE: tl.constexpr):
    """Image of a program, its groups (1, 1, GROUPS), channels (1, SHARE, GROUPS), those within."""
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)[None, None, :]
    member = tl.arange(0, SHARE)[None, :, None]
    inside = (group < groups) & (member < share)
    # the channels of a large map of a large batch pass 2^31 numbers
    return tl.program_id(2).to(tl.int64), group, (member * groups + group).to(tl.int64), inside


@kernel
def _pixels(width, count, PIXELS: tl.constexpr):
    """Rows and columns (PIXELS, 1, 1) of a program, and which are inside of the map."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None, None]
    return pixel // width, pixel % width, pixel < count


@kernel(sizes='width count')
def sum_taps(
    w_ptr, v_ptr, out_ptr,
    w_image, w_group, w_tap, w_row, w_column,
    v_image, v_channel, v_row, v_column,
    out_image, out_channel, out_row, out_column,
    groups, share, width, count, stride, dilation,
    SIZE: tl.constexpr, PIXELS: tl.constexpr, SHARE: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """The weighted sums; axes of a block are pixels, channels that share weights, groups."""
    image, group, channel, there = _channels(groups, share, GROUPS, SHARE)
    row, column, inside = _pixels(width, count, PIXELS)
    own, all_own = inside & (group < groups), inside & there
    w_ptr += image * w_image + group.to(tl.int64) * w_group + row * w_row + column * w_column
    v_ptr += image * v_image + channel * v_channel
    v_ptr += row * stride * v_row + column * stride * v_column
    total = tl.full((PIXELS, SHARE, GROUPS), 0, tl.float32)
    for y in range(SIZE):
        for x in tl.static_range(SIZE):
            weight = tl.load(w_ptr + (y * SIZE + x) * w_tap, mask=own, other=0)
            place = y * dilation * v_row + x * dilation * v_column
            value = tl.load(v_ptr + place, mask=all_own, other=0)
            total += weight.to(tl.float32) * value.to(tl.float32)
    out_ptr += image * out_image + channel * out_channel + row * out_row + column * out_column
    tl.store(out_ptr, total.to(out_ptr.dtype.element_ty), mask=all_own)


@kernel(sizes='width count')
def weight_gradient(
    grad_ptr, v_ptr, out_ptr,
    grad_image, grad_channel, grad_row, grad_column,
    v_image, v_channel, v_row, v_column,
    groups, share, width, count, stride, dilation,
    SIZE: tl.constexpr, PIXELS: tl.constexpr, SHARE: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Gradient of the weights, contiguous: products of values and gradient, over the channels."""
    image, _, channel, there = _channels(groups, share, GROUPS, SHARE)
    row, column, inside = _pixels(width, count, PIXELS)
    all_own = inside & there
    grad_ptr += image * grad_image + channel * grad_channel
    grad = tl.load(grad_ptr + row * grad_row + column * grad_column, mask=all_own, other=0)
    grad = grad.to(tl.float32)
    v_ptr += image * v_image + channel * v_channel
    v_ptr += row * stride * v_row + column * stride * v_column
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    own = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)[None, :]
    out_ptr += (image * groups + own) * (SIZE * SIZE) * count + pixel
    for y in range(SIZE):
        for x in tl.static_range(SIZE):
            place = y * dilation * v_row + x * dilation * v_column
            value = tl.load(v_ptr + place, mask=all_own, other=0)
            product = tl.sum(grad * value.to(tl.float32), 1).to(out_ptr.dtype.element_ty)
            tl.store(
                out_ptr + (y * SIZE + x) * count, product, mask=(pixel < count) & (own < groups)
            )


@kernel(sizes='width count rows columns')
def value_gradient(
    grad_ptr, w_ptr, out_ptr,
    grad_image, grad_channel, grad_row, grad_column,
    w_image, w_group, w_tap, w_row, w_column,
    out_image, out_channel, out_row, out_column,
    groups, share, width, count, rows, columns, dilation,
    STRIDE: tl.constexpr, SIZE: tl.constexpr,
    PIXELS: tl.constexpr, SHARE: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Gradient of the padded values, from the windows of ``rows`` x ``columns`` pixels."""
    image, group, channel, there = _channels(groups, share, GROUPS, SHARE)
    row, column, inside = _pixels(width, count, PIXELS)
    grad_ptr += image * grad_image + channel * grad_channel
    w_ptr += image * w_image + group.to(tl.int64) * w_group
    total = tl.full((PIXELS, SHARE, GROUPS), 0, tl.float32)
    for y in range(SIZE):
        # tap y of the window of a pixel is here
        down = row - y * dilation
        seen_y = inside & (down >= 0) & (down < rows * STRIDE) & (down % STRIDE == 0)
        down = down // STRIDE
        for x in range(SIZE):
            right = column - x * dilation
            seen = seen_y & (right >= 0) & (right < columns * STRIDE) & (right % STRIDE == 0)
            right = right // STRIDE
            place = w_ptr + ((y * SIZE + x) * w_tap + down * w_row + right * w_column)
            weight = tl.load(place, mask=seen & (group < groups), other=0)
            place = grad_ptr + (down * grad_row + right * grad_column)
            grad = tl.load(place, mask=seen & there, other=0)
            total += weight.to(tl.float32) * grad.to(tl.float32)
    out_ptr += image * out_image + channel * out_channel + row * out_row + column * out_column
    tl.store(out_ptr, total.to(out_ptr.dtype.element_ty), mask=inside & there)


def _grid(x: Tensor, groups: int, count: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Programs and their sizes, for a map whose memory the lanes of a warp should read in order."""
    share = power_of_two(x.shape[1] // groups)
    # with channels last groups are side by side, otherwise pixels are
    side_by_side = min(power_of_two(groups), 32) if x.stride(1) == 1 else 1
    pixels = max(1, _BLOCK // (share * side_by_side))
    programs = -(-count // pixels), -(-groups // side_by_side), len(x)
    return programs, dict(PIXELS=pixels, SHARE=share, GROUPS=side_by_side, num_warps=4)


def _format(x: Tensor) -> torch.memory_format:
    """Results are channels-last where the values are, contiguous otherwise."""
    last = x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _result(weights: Tensor, values: Tensor, *_: int) -> Tensor:
    shape = *values.shape[:2], *weights.shape[3:]
    return torch.empty(
        shape, dtype=values.dtype, device=values.device, memory_format=_format(values)
    )


def _gradients(grad: Tensor, weights: Tensor, values: Tensor, *_: int) -> list[Tensor]:
    return [
        weights.new_empty(weights.shape),
        torch.empty_like(values, memory_format=_format(values)),
    ]


def _backward(
    grad: Tensor, weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> list[Tensor]:
    grad_weights, grad_values = found = _gradients(grad, weights, values)
    groups, (height, width) = weights.shape[1], weights.shape[3:]
    share = values.shape[1] // groups

    def run() -> list[Tensor]:
        count = height * width
        grid, sizes = _grid(values, groups, count)
        weight_gradient[grid](
            grad, values, grad_weights, *grad.stride(), *values.stride(),
            groups, share, width, count, stride, dilation, SIZE=kernel_size, **sizes,
        )  # fmt: skip
        count = values.shape[2] * values.shape[3]
        grid, sizes = _grid(values, groups, count)
        value_gradient[grid](
            grad, weights, grad_values, *grad.stride(), *weights.stride(), *grad_values.stride(),
            groups, share, values.shape[3], count, height, width, dilation,
            STRIDE=stride, SIZE=kernel_size, **sizes,
        )  # fmt: skip
        return found

    def otherwise() -> list[Tensor]:
        others = tiled.backward(grad, weights, values, kernel_size, stride, dilation)
        return [x.copy_(y) for x, y in zip(found, others, strict=True)]

    return launched('vector_attention', run, otherwise)


@custom_op(
    'hybrid_mm::aggregate_taps_triton',
    fake=_result,
    backward=_backward,
    backward_fake=_gradients,
)
def aggregate_taps(
    weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> Tensor:
    """Weighted sum of the taps; see :func:`~hybrid_mm.ops.vector_attention.tiled.aggregate_taps`.

    Args:
        weights: Weights (N, G, k^2, H', W'), of any strides.
        values: Padded map (N, C, H, W) of the same type, of any strides.
        kernel_size: k.
        stride: Distance of the windows.
        dilation: Distance of the taps.

    Returns:
        (N, C, H', W'), channels-last in memory if the values are.
    """
    out = _result(weights, values)
    groups, (height, width) = weights.shape[1], weights.shape[3:]

    def run() -> Tensor:
        grid, sizes = _grid(values, groups, height * width)
        sum_taps[grid](
            weights, values, out, *weights.stride(), *values.stride(), *out.stride(),
            groups, values.shape[1] // groups, width, height * width, stride, dilation,
            SIZE=kernel_size, **sizes,
        )  # fmt: skip
        return out

    arguments = kernel_size, stride, dilation
    return launched(
        'vector_attention',
        run,
        lambda: out.copy_(tiled.aggregate_taps(weights, values, *arguments)),
    )
