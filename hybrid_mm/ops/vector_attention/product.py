"""Products ``W relu(scale x + shift) + b`` of all pixels and taps, in one kernel each way.

C C' multiplications per pixel, on tensor cores in half precision. The floor of memory is C + C'
numbers per pixel, twice that backward, and it is met: what is activated never leaves a program. The
backward kernel gives the gradient of x and partial sums of those of the parameters, for some
channels C in each program, which reads the gradient of the result for all C'.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid_mm.compat.torch_api import get_autocast_dtype, is_autocast_enabled
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.kernels import kernel, launched, product_side, tl
from hybrid_mm.ops.partial_sums import PartialSums
from hybrid_mm.ops.recompute import gradients

_PROGRAMS = 1024  # keep a GPU busy


@kernel
def _activated(x_ptr, x_channel, scale_ptr, shift_ptr, channel, channels, pixel, count):
    """Inputs x, ``scale x + shift``, both (channels, pixels), and the scale (channels, 1)."""
    there = channel < channels
    mask = there[:, None] & (pixel < count)[None, :]
    place = (channel.to(tl.int64) * x_channel)[:, None] + pixel[None, :]
    x = tl.load(x_ptr + place, mask=mask, other=0).to(tl.float32)
    scale = tl.load(scale_ptr + channel, mask=there, other=0).to(tl.float32)[:, None]
    shift = tl.load(shift_ptr + channel, mask=there, other=0).to(tl.float32)[:, None]
    return x, tl.where((pixel < count)[None, :], x * scale + shift, 0), scale


@kernel(sizes='count')
def multiply(
    x_ptr, scale_ptr, shift_ptr, weight_ptr, bias_ptr, out_ptr,
    x_image, x_channel, out_image, out_channel, channels, outputs, count,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some outputs for some pixels."""
    number: tl.constexpr = out_ptr.dtype.element_ty
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    image = tl.program_id(2).to(tl.int64)
    total = tl.full((OUTPUTS, PIXELS), 0, tl.float32)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        _, y, _ = _activated(
            x_ptr + image * x_image,
            x_channel,
            scale_ptr,
            shift_ptr,
            channel,
            channels,
            pixel,
            count,
        )
        place = output[:, None] * channels + channel[None, :]
        mask = (output < outputs)[:, None] & (channel < channels)[None, :]
        w = tl.load(weight_ptr + place, mask=mask, other=0).to(number)
        total = tl.dot(w, tl.maximum(y, 0).to(number), total, input_precision=PRECISION)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + output, mask=output < outputs, other=0)
        total += bias.to(tl.float32)[:, None]
    place = image * out_image + (output.to(tl.int64) * out_channel)[:, None] + pixel[None, :]
    mask = (output < outputs)[:, None] & (pixel < count)[None, :]
    tl.store(out_ptr + place, total.to(number), mask=mask)


@kernel(sizes='count tiles each')
def multiply_backward(
    x_ptr, scale_ptr, shift_ptr, weight_ptr, grad_ptr,
    dx_ptr, dscale_ptr, dshift_ptr, dweight_ptr, dbias_ptr,
    x_image, x_channel, grad_image, grad_channel, dx_image, dx_channel,
    out_part, channels, outputs, count, tiles, each,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, STEP: tl.constexpr, PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of some channels of x, and partial sums of those of the parameters."""
    number: tl.constexpr = grad_ptr.dtype.element_ty
    part, output = tl.program_id(0), tl.arange(0, OUTPUTS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    dscale = tl.full((CHANNELS,), 0, tl.float32)
    dshift = tl.full((CHANNELS,), 0, tl.float32)
    dweight = tl.full((OUTPUTS, CHANNELS), 0, tl.float32)
    dbias = tl.full((OUTPUTS,), 0, tl.float32)
    row = tl.cdiv(count, PIXELS)  # tiles of an image
    for tile in range(part * each, tl.minimum((part + 1) * each, tiles)):
        image = (tile // row).to(tl.int64)
        pixel = tile % row * PIXELS + tl.arange(0, PIXELS)
        grads = grad_ptr + image * grad_image + pixel[None, :]
        back = tl.full((CHANNELS, PIXELS), 0, tl.float32)
        for first in tl.static_range(0, OUTPUTS, STEP):
            some = first + tl.arange(0, STEP)
            mask = (some < outputs)[:, None] & (channel < channels)[None, :]
            place = some[:, None] * channels + channel[None, :]
            w = tl.load(weight_ptr + place, mask=mask, other=0).to(number)
            mask = (some < outputs)[:, None] & (pixel < count)[None, :]
            place = (some.to(tl.int64) * grad_channel)[:, None]
            grad = tl.load(grads + place, mask=mask, other=0)
            back = tl.dot(tl.trans(w), grad, back, input_precision=PRECISION)
        x, y, scale = _activated(
            x_ptr + image * x_image,
            x_channel,
            scale_ptr,
            shift_ptr,
            channel,
            channels,
            pixel,
            count,
        )
        back = tl.where(y > 0, back, 0)
        mask = (channel < channels)[:, None] & (pixel < count)[None, :]
        place = image * dx_image + (channel.to(tl.int64) * dx_channel)[:, None] + pixel[None, :]
        tl.store(dx_ptr + place, (back * scale).to(dx_ptr.dtype.element_ty), mask=mask)
        dscale += tl.sum(back * x, 1)
        dshift += tl.sum(back, 1)
        mask = (output < outputs)[:, None] & (pixel < count)[None, :]
        place = (output.to(tl.int64) * grad_channel)[:, None]
        all_grad = tl.load(grads + place, mask=mask, other=0)
        dbias += tl.sum(all_grad.to(tl.float32), 1)
        active = tl.trans(tl.maximum(y, 0).to(number))
        dweight = tl.dot(all_grad, active, dweight, input_precision=PRECISION)
    start = part.to(tl.int64) * out_part
    tl.store(dscale_ptr + start + channel, dscale, mask=channel < channels)
    tl.store(dshift_ptr + start + channel, dshift, mask=channel < channels)
    place = start + output[:, None] * channels + channel[None, :]
    mask = (output < outputs)[:, None] & (channel < channels)[None, :]
    tl.store(dweight_ptr + place, dweight, mask=mask)
    if dbias_ptr is not None:
        mask = (output < outputs) & (tl.program_id(1) == 0)
        tl.store(dbias_ptr + start + output, dbias, mask=mask)


def _plain(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same step by step, of the type of x."""
    y = torch.relu(x * scale[:, None] + shift[:, None]).to(x.dtype)
    out = torch.matmul(weight.to(x.dtype), y)
    return out if bias is None else out + bias[:, None].to(x.dtype)


def _sizes(dtype: torch.dtype) -> dict[str, Any]:
    half = dtype in (torch.float16, torch.bfloat16)
    exact = not half and not torch.backends.cuda.matmul.allow_tf32
    # without tensor cores a thread holds rows and columns of what it multiplies
    block = dict(CHANNELS=16, PIXELS=16) if exact else dict(CHANNELS=32, PIXELS=64)
    return dict(block, PRECISION='ieee' if exact else 'tf32', num_warps=4, num_stages=2)


def _backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dtype: str,
) -> list[Tensor]:
    inputs = x, scale, shift, weight, bias
    grad = grad.contiguous()

    def run() -> list[Tensor]:
        (n, channels, count), outputs = x.shape, len(weight)
        sizes = _sizes(grad.dtype)
        room = product_side(outputs)
        # registers: a program has the gradients of the weights of all outputs
        pixels = 64 if room <= 16 else 32 if room <= 64 else 16
        sizes |= dict(PIXELS=min(pixels, sizes['PIXELS']), num_warps=4 if channels <= 16 else 8)
        most = 16 if room > 64 or channels <= 16 else 32
        sizes |= dict(CHANNELS=min(most, sizes['CHANNELS']), num_stages=1)
        tiles, blocks = -(-count // sizes['PIXELS']) * n, -(-channels // sizes['CHANNELS'])
        parts = max(1, min(tiles, _PROGRAMS // blocks))
        sums = PartialSums(inputs[1:], parts, x.device)
        dx = x.new_empty(x.shape)
        step = 16 if sizes['PRECISION'] == 'ieee' else room
        multiply_backward[parts, blocks](
            x, scale, shift, weight, grad, dx, *(sums.place(i) for i in range(4)),
            *x.stride()[:2], *grad.stride()[:2], *dx.stride()[:2], sums.memory.stride(0),
            channels, outputs, count, tiles, -(-tiles // parts), OUTPUTS=room, STEP=step, **sizes,
        )  # fmt: skip
        return [dx, *sums.total()]

    def otherwise() -> list[Tensor]:
        return gradients(_plain, inputs, grad.to(x.dtype))

    return launched('vector_attention', run, otherwise)


@custom_op(
    'hybrid_mm::activated_product',
    fake=lambda x, scale, shift, weight, bias, dtype: x.new_empty(
        len(x), len(weight), x.shape[2], dtype=getattr(torch, dtype)
    ),
    backward=_backward,
)
def _activated_product(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, dtype: str
) -> Tensor:
    def run() -> Tensor:
        (n, channels, count), outputs = x.shape, len(weight)
        out = x.new_empty(n, outputs, count, dtype=getattr(torch, dtype))
        sizes = _sizes(out.dtype)
        block = 16 if sizes['PRECISION'] == 'ieee' else min(64, product_side(outputs))
        multiply[-(-count // sizes['PIXELS']), -(-outputs // block), n](
            x, scale, shift, weight, bias, out, *x.stride()[:2], *out.stride()[:2],
            channels, outputs, count, OUTPUTS=block, **sizes,
        )  # fmt: skip
        return out

    def otherwise() -> Tensor:
        return _plain(x, scale, shift, weight, bias).to(getattr(torch, dtype))

    return launched('vector_attention', run, otherwise)


def activated_product(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Product with a matrix after a scale, a shift and a ReLU.

    Args:
        x: (N, C, T, L).
        scale: Of each channel, (C,).
        shift: Of each channel, (C,).
        weight: (C', C, 1, 1).
        bias: (C',) or None.

    Returns:
        (N, C', T, L) of the type of a product: autocast's, where it is on, otherwise that of x.
    """
    device = x.device.type
    cast = is_autocast_enabled(device)
    dtype = get_autocast_dtype(device) if cast else x.dtype
    flat = x.flatten(2).contiguous()
    out = _activated_product(
        flat, scale, shift, weight.flatten(1), bias, str(dtype).removeprefix('torch.')
    )
    return out.unflatten(2, x.shape[2:])
