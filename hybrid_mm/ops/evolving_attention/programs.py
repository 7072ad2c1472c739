"""Kernels of evolving attention; :mod:`hybrid_mm.ops.evolving_attention.triton` launches them.

Logits are maps (N, heads, T, T) of float32, one after the other in memory. A program has a tile of
queries and keys of one map, or, in the convolution, pixels of the maps of all heads.
"""

from hybrid_mm.ops.kernels import kernel, tl


@kernel
def _log2():
    return 1.4426950408889634  # of e: exp2 is the instruction that there is


@kernel
def _tile(tokens, first, SIZE: tl.constexpr):
    """Numbers of some tokens, and which of them there are."""
    token = first + tl.arange(0, SIZE)
    return token, token < tokens


@kernel
def _vectors(ptr, token, there, stride, channel_stride, channels, WIDTH: tl.constexpr):
    """Vectors (tokens, WIDTH) of some tokens."""
    channel = tl.arange(0, WIDTH)
    place = token[:, None] * stride + channel[None, :] * channel_stride
    return tl.load(ptr + place, mask=there[:, None] & (channel < channels)[None, :], other=0)


@kernel
def _store_vectors(ptr, x, token, there, channels, WIDTH: tl.constexpr):
    """Write vectors of some tokens, which lie one after the other."""
    channel = tl.arange(0, WIDTH)
    place = token[:, None] * channels + channel[None, :]
    mask = there[:, None] & (channel < channels)[None, :]
    tl.store(ptr + place, x.to(ptr.dtype.element_ty), mask=mask)


@kernel(sizes='tokens rows columns')
def mix(
    q_ptr, k_ptr, row_ptr, column_ptr, previous_ptr, out_ptr,
    q_image, q_head, q_token, q_channel, k_image, k_head, k_token, k_channel,
    heads, tokens, rows, columns, channels, beta,
    PRECISION: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A tile of logits, mixed with those of the layer before."""
    plane = tl.program_id(2).to(tl.int64)
    image, head = plane // heads, plane % heads
    query, asked = _tile(tokens, tl.program_id(0) * SIZE, SIZE)
    key, there = _tile(tokens, tl.program_id(1) * SIZE, SIZE)
    q_ptr += image * q_image + head * q_head
    k_ptr += image * k_image + head * k_head
    q = _vectors(q_ptr, query, asked, q_token, q_channel, channels, WIDTH)
    k = _vectors(k_ptr, key, there, k_token, k_channel, channels, WIDTH)
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    both = asked[:, None] & there[None, :]
    token = (plane * tokens + query)[:, None]
    if row_ptr is not None:
        place = token * rows + (key // columns)[None, :]
        logits += tl.load(row_ptr + place, mask=both, other=0).to(tl.float32)
        place = token * columns + (key % columns)[None, :]
        logits += tl.load(column_ptr + place, mask=both, other=0).to(tl.float32)
    place = token * tokens + key[None, :]
    if previous_ptr is not None:
        logits += beta * (tl.load(previous_ptr + place, mask=both, other=0) - logits)
    tl.store(out_ptr + place, logits, mask=both)


@kernel(sizes='tokens')
def convolve(
    x_ptr, weight_ptr, bias_ptr, center_ptr, out_ptr,
    heads, tokens, factor, center_factor,
    FORWARD: tl.constexpr, RELU: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """3 x 3 convolution over the map of queries and keys, whose channels are the heads.

    ``factor * relu(conv(x) + bias) + center_factor * center``, or the gradient of its input.
    """
    pixel = tl.arange(0, ROWS * COLUMNS)[:, None]
    row = tl.program_id(0) * ROWS + pixel // COLUMNS
    column = tl.program_id(1) * COLUMNS + pixel % COLUMNS
    head = tl.arange(0, HEADS)
    own = (head < heads)[None, :]
    plane = tl.program_id(2).to(tl.int64) * heads + head[None, :]
    place = (plane * tokens + row) * tokens + column
    if FORWARD:
        weight_ptr += (head[None, :] * heads + head[:, None]) * 9
    else:
        weight_ptr += (head[:, None] * heads + head[None, :]) * 9 + 8
    total = tl.full((ROWS * COLUMNS, HEADS), 0, tl.float32)
    for tap in tl.static_range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        inside = (row + down >= 0) & (row + down < tokens)
        inside &= (column + right >= 0) & (column + right < tokens)
        x = tl.load(x_ptr + (place + down * tokens + right), mask=inside & own, other=0)
        weight = tl.load(
            weight_ptr + (tap if FORWARD else -tap), mask=own & (head < heads)[:, None], other=0
        )
        total = tl.dot(x, weight, total, input_precision=PRECISION)
    if bias_ptr is not None:
        total += tl.load(bias_ptr + head, mask=head < heads, other=0)[None, :]
    if RELU:
        total = tl.maximum(total, 0)
    total *= factor
    mask = (row < tokens) & (column < tokens) & own
    if center_ptr is not None:
        total += center_factor * tl.load(center_ptr + place, mask=mask, other=0)
    tl.store(out_ptr + place, total, mask=mask)


@kernel(sizes='tokens')
def weigh(
    logits_ptr, v_ptr, out_ptr, sum_ptr,
    v_image, v_head, v_token, v_channel,
    heads, tokens, channels,
    PRECISION: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Softmax of some queries and the sums of values; saves logarithms (base 2) of its sums."""
    plane = tl.program_id(1).to(tl.int64)
    query, asked = _tile(tokens, tl.program_id(0) * SIZE, SIZE)
    v_ptr += plane // heads * v_image + plane % heads * v_head
    logits_ptr += (plane * tokens + query)[:, None] * tokens
    most = tl.full((SIZE,), float('-inf'), tl.float32)
    total = tl.full((SIZE,), 0, tl.float32)
    out = tl.full((SIZE, WIDTH), 0, tl.float32)
    for first in range(0, tokens, SIZE):
        key, there = _tile(tokens, first, SIZE)
        place = logits_ptr + key[None, :]
        logits = tl.load(place, mask=asked[:, None] & there[None, :], other=0) * _log2()
        logits = tl.where(there[None, :], logits, float('-inf'))
        now = tl.maximum(most, tl.max(logits, 1))
        weights = tl.exp2(logits - now[:, None])
        scale = tl.exp2(most - now)
        total = total * scale + tl.sum(weights, 1)
        v = _vectors(v_ptr, key, there, v_token, v_channel, channels, WIDTH)
        out = out * scale[:, None]
        out = tl.dot(weights.to(v.dtype), v, out, input_precision=PRECISION)
        most = now
    out_ptr += plane * tokens * channels
    _store_vectors(out_ptr, out / total[:, None], query, asked, channels, WIDTH)
    tl.store(sum_ptr + plane * tokens + query, most + tl.log2(total), mask=asked)


@kernel(sizes='tokens')
def differentiate_logits(
    logits_ptr, sign_ptr, v_ptr, result_ptr, sum_ptr, grad_ptr, grad_logits_ptr,
    up_ptr, out_ptr, grad_v_ptr,
    v_image, v_head, v_token, v_channel, grad_image, grad_head, grad_token, grad_channel,
    up_image, up_head, up_query, up_key,
    heads, tokens, channels, alpha,
    PRECISION: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of values and logits, the latter passed through the ReLU, for some keys."""
    plane = tl.program_id(1).to(tl.int64)
    image, head = plane // heads, plane % heads
    key, there = _tile(tokens, tl.program_id(0) * SIZE, SIZE)
    grad_v = tl.full((SIZE, WIDTH), 0, tl.float32)
    if grad_ptr is not None:
        v_ptr += image * v_image + head * v_head
        v = _vectors(v_ptr, key, there, v_token, v_channel, channels, WIDTH)
        grad_ptr += image * grad_image + head * grad_head
    for first in range(0, tokens, SIZE):
        query, asked = _tile(tokens, first, SIZE)
        both = asked[:, None] & there[None, :]
        place = (plane * tokens + query)[:, None] * tokens + key[None, :]
        up = tl.full((SIZE, SIZE), 0, tl.float32)
        if grad_ptr is not None:
            total = tl.load(sum_ptr + plane * tokens + query, mask=asked, other=0)
            logits = tl.load(logits_ptr + place, mask=both, other=float('-inf'))
            weights = tl.exp2(logits * _log2() - total[:, None])
            grad = _vectors(grad_ptr, query, asked, grad_token, grad_channel, channels, WIDTH)
            base = result_ptr + plane * tokens * channels
            result = _vectors(base, query, asked, channels, 1, channels, WIDTH)
            delta = tl.sum(grad.to(tl.float32) * result.to(tl.float32), 1)
            grad = grad.to(v.dtype)
            turned = tl.trans(weights).to(v.dtype)
            grad_v = tl.dot(turned, grad, grad_v, input_precision=PRECISION)
            products = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
            up = weights * (products - delta[:, None])
        if grad_logits_ptr is not None:
            own = query[:, None].to(tl.int64) * up_query + key[None, :].to(tl.int64) * up_key
            own += image * up_image + head * up_head
            up += tl.load(grad_logits_ptr + own, mask=both, other=0).to(tl.float32)
        if up_ptr is not None:
            tl.store(up_ptr + place, up, mask=both)
        if sign_ptr is not None:
            convolved = tl.load(sign_ptr + place, mask=both, other=0)
            up = tl.where(convolved > 0, alpha * up, 0)
        tl.store(out_ptr + place, up, mask=both)
    grad_v_ptr += plane * tokens * channels
    _store_vectors(grad_v_ptr, grad_v, key, there, channels, WIDTH)


@kernel(sizes='tokens images')
def differentiate_kernel(
    grad_ptr, mixed_ptr, out_ptr, bias_ptr, images, heads, tokens,
    PRECISION: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Partial sums of the gradients of a row of taps and of the bias."""
    down = tl.program_id(0) - 1
    result, head = tl.arange(0, WIDE)[:, None], tl.arange(0, HEADS)[None, :]
    pixel = tl.arange(0, SIZE)
    left = tl.full((WIDE, HEADS), 0, tl.float32)
    middle = tl.full((WIDE, HEADS), 0, tl.float32)
    right = tl.full((WIDE, HEADS), 0, tl.float32)
    bias = tl.full((WIDE,), 0, tl.float32)
    per_row = tl.cdiv(tokens, SIZE)
    for part in range(tl.program_id(1), images * tokens * per_row, tl.num_programs(1)):
        line = part // per_row
        column = part % per_row * SIZE + pixel
        image, row = (line // tokens).to(tl.int64), line % tokens
        place = ((image * heads + result) * tokens + row) * tokens + column[None, :]
        mask = (result < heads) & (column < tokens)[None, :]
        grad = tl.load(grad_ptr + place, mask=mask, other=0)
        bias += tl.sum(grad, 1)
        place = ((image * heads + head) * tokens + row + down) * tokens + column[:, None]
        inside = (row + down >= 0) & (row + down < tokens) & (head < heads)
        x = tl.load(
            mixed_ptr + (place - 1),
            mask=inside & ((column >= 1) & (column <= tokens))[:, None], other=0,
        )  # fmt: skip
        left = tl.dot(grad, x, left, input_precision=PRECISION)
        x = tl.load(mixed_ptr + place, mask=inside & (column < tokens)[:, None], other=0)
        middle = tl.dot(grad, x, middle, input_precision=PRECISION)
        x = tl.load(mixed_ptr + (place + 1), mask=inside & (column < tokens - 1)[:, None], other=0)
        right = tl.dot(grad, x, right, input_precision=PRECISION)
    mask = (result < heads) & (head < heads)
    place = ((tl.program_id(1) * heads + result) * heads + head) * 9 + (down + 1) * 3
    tl.store(out_ptr + place, left, mask=mask)
    tl.store(out_ptr + place + 1, middle, mask=mask)
    tl.store(out_ptr + place + 2, right, mask=mask)
    result = tl.arange(0, WIDE)
    place = bias_ptr + tl.program_id(1) * heads + result
    tl.store(place, bias, mask=(result < heads) & (down == 0))


@kernel(sizes='tokens rows columns')
def differentiate_queries(
    grad_ptr, k_ptr, grad_q_ptr, row_ptr, column_ptr,
    k_image, k_head, k_token, k_channel,
    heads, tokens, rows, columns, channels, factor,
    PRECISION: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of some queries and of their terms by key row and column."""
    plane = tl.program_id(1).to(tl.int64)
    query, asked = _tile(tokens, tl.program_id(0) * SIZE, SIZE)
    k_ptr += plane // heads * k_image + plane % heads * k_head
    grad_ptr += (plane * tokens + query)[:, None] * tokens
    grad_q = tl.full((SIZE, WIDTH), 0, tl.float32)
    grad_row = tl.full((SIZE, ROWS), 0, tl.float32)
    grad_column = tl.full((SIZE, COLUMNS), 0, tl.float32)
    for first in range(0, tokens, SIZE):
        key, there = _tile(tokens, first, SIZE)
        k = _vectors(k_ptr, key, there, k_token, k_channel, channels, WIDTH)
        mask = asked[:, None] & there[None, :]
        grad = (factor * tl.load(grad_ptr + key[None, :], mask=mask, other=0)).to(k.dtype)
        grad_q = tl.dot(grad, k, grad_q, input_precision=PRECISION)
        if row_ptr is not None:
            # sums over a row or a column of the map are products with ones
            own = (key // columns)[:, None] == tl.arange(0, ROWS)[None, :]
            ones = tl.where(own, 1.0, 0.0).to(k.dtype)
            grad_row = tl.dot(grad, ones, grad_row, input_precision=PRECISION)
            own = (key % columns)[:, None] == tl.arange(0, COLUMNS)[None, :]
            ones = tl.where(own, 1.0, 0.0).to(k.dtype)
            grad_column = tl.dot(grad, ones, grad_column, input_precision=PRECISION)
    grad_q_ptr += plane * tokens * channels
    _store_vectors(grad_q_ptr, grad_q, query, asked, channels, WIDTH)
    if row_ptr is not None:
        row_ptr += plane * tokens * rows
        _store_vectors(row_ptr, grad_row, query, asked, rows, ROWS)
        column_ptr += plane * tokens * columns
        _store_vectors(column_ptr, grad_column, query, asked, columns, COLUMNS)


@kernel(sizes='tokens')
def differentiate_keys(
    grad_ptr, q_ptr, grad_k_ptr,
    q_image, q_head, q_token, q_channel,
    heads, tokens, channels, factor,
    PRECISION: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of some keys."""
    plane = tl.program_id(1).to(tl.int64)
    key, there = _tile(tokens, tl.program_id(0) * SIZE, SIZE)
    q_ptr += plane // heads * q_image + plane % heads * q_head
    grad_k = tl.full((SIZE, WIDTH), 0, tl.float32)
    for first in range(0, tokens, SIZE):
        query, asked = _tile(tokens, first, SIZE)
        q = _vectors(q_ptr, query, asked, q_token, q_channel, channels, WIDTH)
        place = (plane * tokens + query)[:, None] * tokens + key[None, :]
        grad = tl.load(grad_ptr + place, mask=asked[:, None] & there[None, :], other=0)
        grad = tl.trans(factor * grad).to(q.dtype)
        grad_k = tl.dot(grad, q, grad_k, input_precision=PRECISION)
    grad_k_ptr += plane * tokens * channels
    _store_vectors(grad_k_ptr, grad_k, key, there, channels, WIDTH)
