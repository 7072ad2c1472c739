"""What learned queries read, in one kernel for all of them, and its gradients in three.

Multiplications per pixel of the result: k^2 C, and k^2 R heads exponentials. The floor of memory is
scores, values and result, R heads + 2 C numbers per pixel, and twice that backward. As queries do
not depend on the pixel, they differ in R weights of a tap only: a program, which has a head and
some pixels, makes them and adds them up before it reads the values, once for all queries. Scores
are shifted by their largest value in the window. In the backward pass one kernel goes through the
windows: it leaves the products of gradient and values for every tap, k^2 heads numbers per pixel,
the logarithm of the sum and the share of the softmax, and partial sums of the gradients of both
tables; from these a second one gathers what every pixel of the map gets from the windows that see
it. Nothing is added by atomics. Sums have single precision.

Names: s scores, v values, b bias, c scale, dy gradient of the result, product those of dy and v.
Axes of a block are queries and pixels, or pixels and channels.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.kernels import kernel, launched, power_of_two, tl
from hybrid_mm.ops.learned_queries import tiled
from hybrid_mm.ops.partial_sums import PartialSums
from hybrid_mm.ops.recompute import gradients

_BLOCK = 1024  # values of a program
_PROGRAMS = 4096  # of one warp; keep a GPU busy


@kernel
def _seen(
    pixel, count, width, tap, map_height, map_width, STRIDE: tl.constexpr, SIZE: tl.constexpr
):
    """What a tap of windows reads: the pixel of the map, and whether it is inside."""
    row = pixel // width * STRIDE + tap // SIZE - SIZE // 2
    column = pixel % width * STRIDE + tap % SIZE - SIZE // 2
    inside = (row >= 0) & (row < map_height) & (column >= 0) & (column < map_width)
    return row * map_width + column, inside & (pixel < count)


@kernel
def _table(ptr, query, queries, head, heads, tap, SIZE: tl.constexpr):
    """Entries (queries, 1) of a table of parameters for a tap."""
    place = (query * heads + head) * (SIZE * SIZE) + tap
    return tl.load(ptr + place, mask=query < queries, other=0).to(tl.float32)[:, None]


@kernel
def _logits(s_ptr, s_query, s_pixel, b_ptr, query, queries, head, heads, tap, key, seen,
            SIZE: tl.constexpr):  # fmt: skip
    """Logits (queries, pixels) of a tap, very low outside of the map."""
    mask = (query < queries)[:, None] & seen[None, :]
    place = query[:, None] * s_query + key[None, :] * s_pixel
    s = tl.load(s_ptr + place, mask=mask, other=0).to(tl.float32)
    bias = _table(b_ptr, query, queries, head, heads, tap, SIZE)
    return tl.where(seen[None, :], s + bias, -1e30)


@kernel
def _log_sum(
    s_ptr, s_query, s_pixel, b_ptr, query, queries, head, heads,
    pixel, count, width, map_height, map_width,
    STRIDE: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Logarithm (queries, pixels) of the sum of exponentials of a window's logits."""
    top = tl.full((QUERIES, PIXELS), -1e30, tl.float32)
    total = tl.full((QUERIES, PIXELS), 0, tl.float32)
    for tap in range(SIZE * SIZE):
        key, seen = _seen(pixel, count, width, tap, map_height, map_width, STRIDE, SIZE)
        logits = _logits(
            s_ptr, s_query, s_pixel, b_ptr, query, queries, head, heads, tap, key, seen, SIZE
        )
        higher = tl.maximum(top, logits)
        total = total * tl.exp(top - higher) + tl.exp(logits - higher)
        top = higher
    return top + tl.log(total)


@kernel(sizes='count width map_height map_width')
def read_windows(
    s_ptr, v_ptr, b_ptr, c_ptr, y_ptr,
    s_image, s_query, s_head, s_pixel, v_image, v_channel, v_pixel, y_image, y_channel, y_pixel,
    queries, heads, dim, count, width, map_height, map_width,
    STRIDE: tl.constexpr, SIZE: tl.constexpr,
    QUERIES: tl.constexpr, PIXELS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """The result of a head for some pixels."""
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    pixel, query = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, QUERIES)
    channel, there = head * dim + tl.arange(0, DIM), tl.arange(0, DIM) < dim
    s_ptr += image * s_image + head * s_head
    v_ptr += image * v_image + (channel.to(tl.int64) * v_channel)[None, :]
    log_sum = _log_sum(
        s_ptr, s_query, s_pixel, b_ptr, query, queries, head, heads,
        pixel, count, width, map_height, map_width, STRIDE, SIZE, QUERIES, PIXELS,
    )  # fmt: skip
    total = tl.full((PIXELS, DIM), 0, tl.float32)
    for tap in range(SIZE * SIZE):
        key, seen = _seen(pixel, count, width, tap, map_height, map_width, STRIDE, SIZE)
        logits = _logits(
            s_ptr, s_query, s_pixel, b_ptr, query, queries, head, heads, tap, key, seen, SIZE
        )
        scale = _table(c_ptr, query, queries, head, heads, tap, SIZE)
        weight = tl.sum(tl.exp(logits - log_sum) * scale, 0)[:, None]
        mask = seen[:, None] & there[None, :]
        v = tl.load(v_ptr + key[:, None] * v_pixel, mask=mask, other=0)
        total += weight * v.to(tl.float32)
    place = (channel.to(tl.int64) * y_channel)[None, :] + (pixel * y_pixel)[:, None]
    mask = (pixel < count)[:, None] & there[None, :]
    tl.store(y_ptr + image * y_image + place, total.to(y_ptr.dtype.element_ty), mask=mask)


@kernel(sizes='count width map_height map_width tiles each')
def window_gradients(
    s_ptr, v_ptr, b_ptr, c_ptr, dy_ptr, product_ptr, log_ptr, share_ptr, db_ptr, dc_ptr,
    s_image, s_query, s_head, s_pixel, v_image, v_channel, v_pixel, dy_image, dy_channel, dy_pixel,
    queries, heads, dim, count, pitch, width, map_height, map_width, out_part, tiles, each,
    STRIDE: tl.constexpr, SIZE: tl.constexpr, ROOM: tl.constexpr,
    QUERIES: tl.constexpr, PIXELS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """What windows leave for the second kernel, and partial sums over ``each`` tiles of pixels."""
    number: tl.constexpr = product_ptr.dtype.element_ty
    part, head = tl.program_id(0), tl.program_id(1)
    query, entry = tl.arange(0, QUERIES), tl.arange(0, ROOM)[None, :]
    channel, there = head * dim + tl.arange(0, DIM), tl.arange(0, DIM) < dim
    db = tl.full((QUERIES, ROOM), 0, tl.float32)
    dc = tl.full((QUERIES, ROOM), 0, tl.float32)
    row = tl.cdiv(count, PIXELS)  # tiles of an image
    for tile in range(part * each, tl.minimum((part + 1) * each, tiles)):
        image = (tile // row).to(tl.int64)
        pixel = tile % row * PIXELS + tl.arange(0, PIXELS)
        inside = (query < queries)[:, None] & (pixel < count)[None, :]
        scores = s_ptr + image * s_image + head * s_head
        log_sum = _log_sum(
            scores, s_query, s_pixel, b_ptr, query, queries, head, heads,
            pixel, count, width, map_height, map_width, STRIDE, SIZE, QUERIES, PIXELS,
        )  # fmt: skip
        own = ((image * queries + query)[:, None] * heads + head) * pitch + pixel[None, :]
        tl.store(log_ptr + own, log_sum, mask=inside)
        place = image * dy_image + (channel.to(tl.int64) * dy_channel)[None, :]
        mask = (pixel < count)[:, None] & there[None, :]
        dy = tl.load(dy_ptr + place + (pixel * dy_pixel)[:, None], mask=mask, other=0)
        dy = dy.to(tl.float32)
        values = v_ptr + image * v_image + (channel.to(tl.int64) * v_channel)[None, :]
        products = product_ptr + (image * heads + head) * (SIZE * SIZE) * pitch + pixel
        share = tl.full((QUERIES, PIXELS), 0, tl.float32)
        for tap in range(SIZE * SIZE):
            key, seen = _seen(pixel, count, width, tap, map_height, map_width, STRIDE, SIZE)
            logits = _logits(
                scores, s_query, s_pixel, b_ptr, query, queries, head, heads, tap, key, seen, SIZE
            )
            scale = _table(c_ptr, query, queries, head, heads, tap, SIZE)
            mask = seen[:, None] & there[None, :]
            v = tl.load(values + key[:, None] * v_pixel, mask=mask, other=0).to(tl.float32)
            # rounded before the share is taken, which cancels it out where one tap has all weight
            product = tl.sum(dy * v, 1).to(number)
            tl.store(products + tap * pitch, product, mask=pixel < count)
            share += tl.exp(logits - log_sum) * scale * product.to(tl.float32)[None, :]
        tl.store(share_ptr + own, share, mask=inside)
        tl.debug_barrier()  # the products are read again
        for tap in range(SIZE * SIZE):
            key, seen = _seen(pixel, count, width, tap, map_height, map_width, STRIDE, SIZE)
            logits = _logits(
                scores, s_query, s_pixel, b_ptr, query, queries, head, heads, tap, key, seen, SIZE
            )
            scale = _table(c_ptr, query, queries, head, heads, tap, SIZE)
            product = tl.load(products + tap * pitch, mask=seen, other=0).to(tl.float32)[None, :]
            weight = tl.where(seen[None, :], tl.exp(logits - log_sum), 0)
            dc += tl.where(entry == tap, tl.sum(weight * product, 1)[:, None], 0)
            change = weight * (scale * product - share)
            db += tl.where(entry == tap, tl.sum(change, 1)[:, None], 0)
    place = part.to(tl.int64) * out_part
    place += (query[:, None] * heads + head) * (SIZE * SIZE) + entry
    mask = (query < queries)[:, None] & (entry < SIZE * SIZE)
    tl.store(db_ptr + place, db, mask=mask)
    tl.store(dc_ptr + place, dc, mask=mask)


@kernel(sizes='count width rows map_count map_width')
def pixel_gradients(
    s_ptr, b_ptr, c_ptr, dy_ptr, product_ptr, log_ptr, share_ptr, ds_ptr, dv_ptr,
    s_image, s_query, s_head, s_pixel, dy_image, dy_channel, dy_pixel,
    ds_image, ds_query, ds_head, ds_pixel, dv_image, dv_channel, dv_pixel,
    queries, heads, dim, pitch, rows, width, map_count, map_width,
    STRIDE: tl.constexpr, SIZE: tl.constexpr,
    QUERIES: tl.constexpr, PIXELS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Gradients of scores and values of a head for some pixels of the map."""
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    key, query = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, QUERIES)
    channel, there = head * dim + tl.arange(0, DIM), tl.arange(0, DIM) < dim
    inside = (query < queries)[:, None] & (key < map_count)[None, :]
    place = image * s_image + head * s_head + query[:, None] * s_query + (key * s_pixel)[None, :]
    s = tl.load(s_ptr + place, mask=inside, other=0).to(tl.float32)
    dy_ptr += image * dy_image + (channel.to(tl.int64) * dy_channel)[None, :]
    product_ptr += (image * heads + head) * (SIZE * SIZE) * pitch
    own = ((image * queries + query)[:, None] * heads + head) * pitch
    ds = tl.full((QUERIES, PIXELS), 0, tl.float32)
    dv = tl.full((PIXELS, DIM), 0, tl.float32)
    for tap in range(SIZE * SIZE):
        # the window whose tap this pixel is
        row = key // map_width + SIZE // 2 - tap // SIZE
        column = key % map_width + SIZE // 2 - tap % SIZE
        seen = (row >= 0) & (row < rows * STRIDE) & (row % STRIDE == 0) & (key < map_count)
        seen &= (column >= 0) & (column < width * STRIDE) & (column % STRIDE == 0)
        pixel = row // STRIDE * width + column // STRIDE
        mask = (query < queries)[:, None] & seen[None, :]
        log_sum = tl.load(log_ptr + own + pixel[None, :], mask=mask, other=0)
        share = tl.load(share_ptr + own + pixel[None, :], mask=mask, other=0)
        product = tl.load(product_ptr + tap * pitch + pixel, mask=seen, other=0).to(tl.float32)
        bias = _table(b_ptr, query, queries, head, heads, tap, SIZE)
        scale = _table(c_ptr, query, queries, head, heads, tap, SIZE)
        weight = tl.exp(tl.where(mask, s + bias - log_sum, -1e30))
        ds += weight * (scale * product[None, :] - share)
        mask = seen[:, None] & there[None, :]
        dy = tl.load(dy_ptr + pixel[:, None] * dy_pixel, mask=mask, other=0)
        dv += tl.sum(weight * scale, 0)[:, None] * dy.to(tl.float32)
    place = image * ds_image + head * ds_head + query[:, None] * ds_query
    place += (key * ds_pixel)[None, :]
    tl.store(ds_ptr + place, ds.to(ds_ptr.dtype.element_ty), mask=inside)
    place = image * dv_image + (channel.to(tl.int64) * dv_channel)[None, :]
    place += (key * dv_pixel)[:, None]
    mask = (key < map_count)[:, None] & there[None, :]
    tl.store(dv_ptr + place, dv.to(dv_ptr.dtype.element_ty), mask=mask)


def _tokens(x: Tensor, height: int, width: int) -> Tensor:
    """Memory for a map of the channels of x, channels last: projections read tokens."""
    shape = *x.shape[:2], height, width
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _sizes(bias: Tensor, values: Tensor) -> tuple[int, dict[str, Any]]:
    """Width of a head, and sizes of the programs."""
    queries, heads, size = bias.shape[:3]
    dim = values.shape[1] // heads
    block = dict(QUERIES=power_of_two(queries), DIM=power_of_two(dim))
    pixels = max(4, min(128, _BLOCK // max(block.values())))
    return dim, block | dict(PIXELS=pixels, SIZE=size, num_warps=4)


def _backward(
    grad: Tensor, scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int
) -> list[Tensor]:
    inputs = scores, values, bias, scale

    def run() -> list[Tensor]:
        n, (queries, heads) = len(values), bias.shape[:2]
        (height, width), (rows, columns) = values.shape[2:], grad.shape[2:]
        dim, sizes = _sizes(bias, values)
        count, pixels = rows * columns, sizes['PIXELS']
        # two tables beside a block of values are much for the registers, sums within a warp cheap
        small = sizes | dict(PIXELS=max(1, min(16, 256 // sizes['DIM'])), num_warps=1)
        pitch = -(-count // 16) * 16
        half = values.dtype in (torch.float16, torch.bfloat16)
        product = values.new_empty(
            n, heads, bias[0, 0].numel(), pitch, dtype=values.dtype if half else torch.float32
        )
        log_sum, share = values.new_empty(2, n, queries, heads, pitch, dtype=torch.float32)
        found = [scores.new_empty(scores.shape), _tokens(values, height, width)]
        s, ds = (x.flatten(3) for x in (scores, found[0]))
        v, dy, dv = (x.flatten(2) for x in (values, grad, found[1]))
        tiles = -(-count // small['PIXELS']) * n
        parts = max(1, min(tiles, _PROGRAMS // heads))
        sums = PartialSums((bias, scale), parts, values.device)
        window_gradients[parts, heads](
            s, v, bias, scale, dy, product, log_sum, share, sums.place(0), sums.place(1),
            *s.stride(), *v.stride(), *dy.stride(), queries, heads, dim, count, pitch, columns,
            height, width, sums.memory.stride(0), tiles, -(-tiles // parts),
            STRIDE=stride, ROOM=power_of_two(bias[0, 0].numel()), **small,
        )  # fmt: skip
        pixel_gradients[-(-height * width // pixels), heads, n](
            s, bias, scale, dy, product, log_sum, share, ds, dv,
            *s.stride(), *dy.stride(), *ds.stride(), *dv.stride(),
            queries, heads, dim, pitch, rows, columns, height * width, width,
            STRIDE=stride, **sizes,
        )  # fmt: skip
        return found + sums.total()

    def otherwise() -> list[Tensor]:
        results = zip(
            _gradients(grad, *inputs), _plain_gradients(grad, inputs, stride), strict=True
        )
        return [x.copy_(y) for x, y in results]

    return launched('learned_query_attention', run, otherwise)


def _plain_gradients(grad: Tensor, inputs: tuple[Tensor, ...], stride: int) -> list[Tensor]:
    def plain(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        return tiled.attend(scores, values.to(scores.dtype), bias, scale, stride)

    return gradients(plain, inputs, grad.to(inputs[0].dtype))


def _gradients(
    grad: Tensor, scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, *_: int
) -> list[Tensor]:
    others = [x.new_empty(x.shape) for x in (bias, scale)]
    return [scores.new_empty(scores.shape), _tokens(values, *values.shape[2:]), *others]


def _result(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    return _tokens(values, *((size - 1) // stride + 1 for size in values.shape[2:]))


@custom_op(
    'hybrid_mm::learned_query_attention',
    fake=_result,
    backward=_backward,
    backward_fake=_gradients,
)
def _attend(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    out = _result(scores, values, bias, scale, stride)

    def run() -> Tensor:
        (height, width), (rows, columns) = values.shape[2:], out.shape[2:]
        s, v, y = scores.flatten(3), values.flatten(2), out.flatten(2)
        (queries, heads), (dim, sizes) = bias.shape[:2], _sizes(bias, values)
        read_windows[-(-rows * columns // sizes['PIXELS']), heads, len(v)](
            s, v, bias, scale, y, *s.stride(), *v.stride(), *y.stride(),
            queries, heads, dim, rows * columns, columns, height, width, STRIDE=stride, **sizes,
        )  # fmt: skip
        return out

    def otherwise() -> Tensor:
        return out.copy_(tiled.attend(scores, values.to(scores.dtype), bias, scale, stride))

    return launched('learned_query_attention', run, otherwise)


def attend(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """What all queries read; channels last in memory; see the public function."""
    return _attend(scores, values, bias.contiguous(), scale.contiguous(), stride)
