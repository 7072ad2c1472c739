"""Kernels of ELSA's ghost head; :mod:`~hybrid_mm.ops.ghost_attention.triton` launches them.

Names: h hidden, v values, a weights (N, heads, k^2, pixels), d gradients of
their logits; rows of both are ``pitch`` numbers apart.
"""

from hybrid_mm.ops.kernels import kernel, tl


@kernel
def _gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@kernel
def _gelu_slope(x):
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * density


@kernel
def _softmax(
    h_ptr, h_channel, h_pixel, weight_ptr, weight_row, weight_column, bias_ptr, a_ptr,
    head, channels, pixel, count, pitch,
    TAPS: tl.constexpr, ROOM: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The weights (pixels, taps) of a head, also written with pixels side by side."""
    number: tl.constexpr = a_ptr.dtype.element_ty
    tap, channel = tl.arange(0, ROOM), tl.arange(0, CHANNELS)
    row = head * TAPS + tap
    logits = tl.full((PIXELS, ROOM), 0, tl.float32)
    for first in range(0, channels, CHANNELS):
        there = first + channel < channels
        place = (first + channel[None, :]) * h_channel + pixel[:, None] * h_pixel
        h = tl.load(h_ptr + place, mask=there[None, :] & (pixel < count)[:, None], other=0)
        place = row[None, :] * weight_row + (first + channel)[:, None] * weight_column
        w = tl.load(weight_ptr + place, mask=there[:, None] & (tap < TAPS)[None, :], other=0)
        active = _gelu(h.to(tl.float32)).to(number)
        logits = tl.dot(active, w.to(number), logits, input_precision=PRECISION)
    bias = tl.load(bias_ptr + row, mask=tap < TAPS, other=0).to(tl.float32)
    logits = tl.where((tap < TAPS)[None, :], logits + bias[None, :], float('-inf'))
    power = tl.exp(logits - tl.max(logits, 1)[:, None])
    a = power / tl.sum(power, 1)[:, None]
    place = (head * TAPS + tap)[None, :] * pitch + pixel[:, None]
    inside = (tap < TAPS)[None, :] & (pixel < count)[:, None]
    tl.store(a_ptr + place, a.to(number), mask=inside)
    return a


@kernel
def _seen(pixel, count, height, width, y, x):
    """The pixels (y, x) away: which of them are inside of the map."""
    row, column = pixel // width + y, pixel % width + x
    return (pixel < count) & (row >= 0) & (row < height) & (column >= 0) & (column < width)


@kernel
def _filters(mul_ptr, add_ptr, channel, there, tap, TAPS: tl.constexpr):
    """Factors and summands (1, channels) of a tap."""
    place, mask = (channel * TAPS + tap)[None, :], there[None, :]
    mul, add = 1.0, 0.0
    if mul_ptr is not None:
        mul = tl.load(mul_ptr + place, mask=mask, other=0).to(tl.float32)
    if add_ptr is not None:
        add = tl.load(add_ptr + place, mask=mask, other=0).to(tl.float32)
    return mul, add


@kernel(sizes='count')
def make_weights(
    h_ptr, weight_ptr, bias_ptr, a_ptr,
    h_image, h_channel, h_pixel, weight_row, weight_column,
    heads, channels, count, pitch,
    TAPS: tl.constexpr, ROOM: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Weights of a head for some pixels."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    _softmax(
        h_ptr + image * h_image, h_channel, h_pixel,
        weight_ptr, weight_row, weight_column, bias_ptr, a_ptr + image * heads * TAPS * pitch,
        head, channels, pixel, count, pitch, TAPS, ROOM, CHANNELS, PIXELS, PRECISION,
    )  # fmt: skip


@kernel(sizes='count height width')
def sum_taps(
    a_ptr, v_ptr, mul_ptr, add_ptr, out_ptr,
    v_image, v_channel, v_pixel, out_image, out_channel, out_pixel,
    heads, dim, count, pitch, height, width, dilation,
    SIZE: tl.constexpr, SIGN: tl.constexpr, PIXELS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Sums over taps for a head and some pixels.

    With ``SIGN`` 1 they are the result. With -1, the gradient of the result in place of the
    values, they are the gradient of the values: the windows that see a pixel have their weights at
    the mirrored taps.
    """
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    pixel, part = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, DIM)
    channel, there = head * dim + part, part < dim
    v_ptr += image * v_image + (channel.to(tl.int64) * v_channel)[None, :]
    a_ptr += (image * heads + head) * (SIZE * SIZE) * pitch
    total = tl.full((PIXELS, DIM), 0, tl.float32)
    for tap in range(SIZE * SIZE):
        y = SIGN * (tap // SIZE - SIZE // 2) * dilation
        x = SIGN * (tap % SIZE - SIZE // 2) * dilation
        seen = _seen(pixel, count, height, width, y, x)
        other = pixel + y * width + x
        v = tl.load(v_ptr + other[:, None] * v_pixel, mask=seen[:, None] & there[None, :], other=0)
        owner = pixel if SIGN == 1 else other
        a = tl.load(a_ptr + tap * pitch + owner, mask=seen, other=0).to(tl.float32)[:, None]
        mul, add = _filters(mul_ptr, add_ptr, channel, there, tap, SIZE * SIZE)
        total += (a * mul + add) * v.to(tl.float32)
    place = (channel.to(tl.int64) * out_channel)[None, :] + (pixel * out_pixel)[:, None]
    mask = (pixel < count)[:, None] & there[None, :]
    tl.store(out_ptr + image * out_image + place, total.to(out_ptr.dtype.element_ty), mask=mask)


@kernel(sizes='count height width')
def weight_gradients(
    h_ptr, weight_ptr, bias_ptr, grad_ptr, v_ptr, mul_ptr, a_ptr, d_ptr,
    h_image, h_channel, h_pixel, weight_row, weight_column,
    grad_image, grad_channel, grad_pixel, v_image, v_channel, v_pixel,
    heads, dim, channels, count, pitch, height, width, dilation,
    SIZE: tl.constexpr, ROOM: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    DIM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The weights of a head for some pixels again, and the gradients of their logits."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    own = image * heads * (SIZE * SIZE) * pitch
    a = _softmax(
        h_ptr + image * h_image, h_channel, h_pixel,
        weight_ptr, weight_row, weight_column, bias_ptr, a_ptr + own,
        head, channels, pixel, count, pitch, SIZE * SIZE, ROOM, CHANNELS, PIXELS, PRECISION,
    )  # fmt: skip
    part = tl.arange(0, DIM)
    channel, there = head * dim + part, part < dim
    place = (channel.to(tl.int64) * grad_channel)[None, :] + (pixel * grad_pixel)[:, None]
    mask = (pixel < count)[:, None] & there[None, :]
    grad = tl.load(grad_ptr + image * grad_image + place, mask=mask, other=0).to(tl.float32)
    v_ptr += image * v_image + (channel.to(tl.int64) * v_channel)[None, :]
    d_ptr += own + head * (SIZE * SIZE) * pitch
    for tap in range(SIZE * SIZE):
        y, x = (tap // SIZE - SIZE // 2) * dilation, (tap % SIZE - SIZE // 2) * dilation
        seen = _seen(pixel, count, height, width, y, x)
        seen = seen[:, None] & there[None, :]
        other = (pixel + y * width + x)[:, None] * v_pixel
        v = tl.load(v_ptr + other, mask=seen, other=0).to(tl.float32)
        mul, _ = _filters(mul_ptr, None, channel, there, tap, SIZE * SIZE)
        da = tl.sum(grad * v * mul, 1).to(d_ptr.dtype.element_ty)
        tl.store(d_ptr + tap * pitch + pixel, da, mask=pixel < count)
    tl.debug_barrier()  # the gradients of the weights are read again, all of a pixel at once
    tap = tl.arange(0, ROOM)
    place = d_ptr + tap[None, :] * pitch + pixel[:, None]
    mask = (tap < SIZE * SIZE)[None, :] & (pixel < count)[:, None]
    da = tl.load(place, mask=mask, other=0).to(tl.float32)
    d = a * (da - tl.sum(a * da, 1)[:, None])
    tl.debug_barrier()
    tl.store(place, d.to(d_ptr.dtype.element_ty), mask=mask)


@kernel
def _logit_gradients(d_ptr, base, tap, pixel, count, pitch, TAPS: tl.constexpr):
    """Gradients (taps, pixels) of the logits of a head, which begin at ``base``."""
    mask = (tap < TAPS)[:, None] & (pixel < count)[None, :]
    return tl.load(d_ptr + base + tap[:, None] * pitch + pixel[None, :], mask=mask, other=0)


@kernel
def _rows(
    weight_ptr, weight_row, weight_column, head, tap, channel, channels, TAPS: tl.constexpr
):  # fmt: skip
    """Rows (taps, channels) of W."""
    place = (head * TAPS + tap)[:, None] * weight_row + channel[None, :] * weight_column
    mask = (tap < TAPS)[:, None] & (channel < channels)[None, :]
    return tl.load(weight_ptr + place, mask=mask, other=0)


@kernel(sizes='count')
def hidden_gradient(
    d_ptr, weight_ptr, h_ptr, out_ptr,
    weight_row, weight_column, h_image, h_channel, h_pixel, out_image, out_channel, out_pixel,
    heads, channels, count, pitch,
    TAPS: tl.constexpr, ROOM: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    PRECISION: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Gradient of some channels of the hidden map for some pixels, from the logits of all heads."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    image = tl.program_id(2).to(tl.int64)
    total = tl.full((PIXELS, CHANNELS), 0, tl.float32)
    for head in range(heads):
        base = (image * heads + head) * TAPS * pitch
        for first in range(0, ROOM, STEP):
            tap = first + tl.arange(0, STEP)
            d = _logit_gradients(d_ptr, base, tap, pixel, count, pitch, TAPS)
            w = _rows(weight_ptr, weight_row, weight_column, head, tap, channel, channels, TAPS)
            total = tl.dot(tl.trans(d), w.to(d.dtype), total, input_precision=PRECISION)
    mask = (pixel < count)[:, None] & (channel < channels)[None, :]
    place = channel[None, :] * h_channel + pixel[:, None] * h_pixel
    h = tl.load(h_ptr + image * h_image + place, mask=mask, other=0).to(tl.float32)
    place = channel[None, :] * out_channel + pixel[:, None] * out_pixel
    found = (total * _gelu_slope(h)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + image * out_image + place, found, mask=mask)


@kernel(sizes='count tiles each')
def product_gradient(
    d_ptr, h_ptr, weight_ptr, bias_ptr,
    h_image, h_channel, h_pixel, out_part, heads, channels, count, pitch, tiles, each,
    TAPS: tl.constexpr, ROOM: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums over ``each`` tiles of pixels: gradients of W's rows of a head, and of b."""
    part, head = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    tap = tl.arange(0, ROOM)
    total = tl.full((ROOM, CHANNELS), 0, tl.float32)
    bias = tl.full((ROOM,), 0, tl.float32)
    row = tl.cdiv(count, PIXELS)  # tiles of an image
    for tile in range(part * each, tl.minimum((part + 1) * each, tiles)):
        image = (tile // row).to(tl.int64)
        pixel = tile % row * PIXELS + tl.arange(0, PIXELS)
        base = (image * heads + head) * TAPS * pitch
        d = _logit_gradients(d_ptr, base, tap, pixel, count, pitch, TAPS)
        bias += tl.sum(d.to(tl.float32), 1)
        mask = (pixel < count)[:, None] & (channel < channels)[None, :]
        place = channel[None, :] * h_channel + pixel[:, None] * h_pixel
        h = tl.load(h_ptr + image * h_image + place, mask=mask, other=0).to(tl.float32)
        total = tl.dot(d, _gelu(h).to(d.dtype), total, input_precision=PRECISION)
    first, row = part.to(tl.int64) * out_part, head * TAPS + tap
    mask = (tap < TAPS)[:, None] & (channel < channels)[None, :]
    tl.store(weight_ptr + first + row[:, None] * channels + channel[None, :], total, mask=mask)
    tl.store(bias_ptr + first + row, bias, mask=(tap < TAPS) & (tl.program_id(1) == 0))


@kernel(sizes='count height width tiles each')
def filter_gradient(
    a_ptr, grad_ptr, v_ptr, mul_ptr, add_ptr,
    grad_image, grad_channel, grad_pixel, v_image, v_channel, v_pixel,
    out_part, heads, dim, count, pitch, height, width, dilation, tiles, each,
    SIZE: tl.constexpr, ROW: tl.constexpr, PIXELS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Partial sums over ``each`` tiles of pixels: gradients of a row of taps of a head's filters.

    Axes of a block are taps, pixels and channels.
    """
    part, y, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tap = tl.arange(0, ROW)[:, None, None]
    inner = tl.arange(0, DIM)[None, None, :]
    channel, there = head * dim + inner, inner < dim
    down, right = (y - SIZE // 2) * dilation, (tap - SIZE // 2) * dilation
    mul = tl.full((ROW, PIXELS, DIM), 0, tl.float32)
    add = tl.full((ROW, PIXELS, DIM), 0, tl.float32)
    row = tl.cdiv(count, PIXELS)  # tiles of an image
    for tile in range(part * each, tl.minimum((part + 1) * each, tiles)):
        image = (tile // row).to(tl.int64)
        pixel = (tile % row * PIXELS + tl.arange(0, PIXELS))[None, :, None]
        seen = (tap < SIZE) & _seen(pixel, count, height, width, down, right)
        place = image * grad_image + channel.to(tl.int64) * grad_channel + pixel * grad_pixel
        grad = tl.load(grad_ptr + place, mask=there & (pixel < count), other=0).to(tl.float32)
        place = image * v_image + channel.to(tl.int64) * v_channel
        place += (pixel + down * width + right) * v_pixel
        v = tl.load(v_ptr + place, mask=seen & there, other=0).to(tl.float32)
        product = grad * v
        if add_ptr is not None:
            add += product
        if mul_ptr is not None:
            base = ((image * heads + head) * (SIZE * SIZE) + y * SIZE) * pitch
            a = tl.load(a_ptr + base + tap * pitch + pixel, mask=seen, other=0).to(tl.float32)
            mul += product * a
    channel, tap = head * dim + tl.arange(0, DIM)[None, :], tl.arange(0, ROW)[:, None]
    place = part.to(tl.int64) * out_part + channel * (SIZE * SIZE) + y * SIZE + tap
    mask = (tap < SIZE) & (tl.arange(0, DIM)[None, :] < dim)
    if mul_ptr is not None:
        tl.store(mul_ptr + place, tl.sum(mul, 1), mask=mask)
    if add_ptr is not None:
        tl.store(add_ptr + place, tl.sum(add, 1), mask=mask)
