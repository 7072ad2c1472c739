"""Kernels of depthwise convolutions with shared taps: products on tensor cores, and a direct form.

A map of P pixels and a kernel of A x B taps need P A B multiplications, and at least one read of x
and one write of the result. On GPUs both matter: 31 x 31 taps in float32 keep an A100 busy for 20
times as long as the memory is.

Products (half precision, and float32 where TF32 is allowed). The taps of one channel do not fill a
tensor core; patches of pixels do. The result of a channel is a matrix with a row for every patch of
R x V pixels and a column for every pixel of a patch. A row s of the R + A - 1 rows of x that a
patch needs adds ``X_s[patch, u] T_s[u, (r, v)]``, with the Toeplitz matrix
``T_s[u, (r, v)] = w[s - r, u - v]``. That is a plain product of matrices, in a loop over s and
blocks of u: (R + A - 1) (V + B - 1) multiplications per pixel and R V = 64, two times A B for
31 x 31 taps, at 16 times the rate. The rows of X are read where they are. A Toeplitz matrix is a
window that slides over one row of weights; copies of the padded row, each begun one place later,
make each window begin at a vector of several numbers, so that both operands are read in vectors,
ahead of their use.
The gradient of the weights is the product the other way round: ``G_s[u, (r, v)] = sum over patches
of X_s[patch, u] dY[patch, (r, v)]``, whose diagonals are the gradients of the taps. Partial sums go
to a buffer that a second kernel adds up, and so do the taps that share a weight: no atomics.

Direct form (float32): a tile of pixels, one multiplication for each tap and pixel.

Tall stripes swap rows and columns. Maps whose rows do not begin at vectors (widths that 8 does not
divide, channels-last) are copied once, rows padded with zeros. Launches: at most 3 forward; 6
backward.
"""

from hybrid_mm.ops.kernels import kernel, tl


@kernel(sizes='inner lines width padded')
def copy(
    x_ptr, out_ptr, inner, lines, width, padded,
    x_outer, x_inner, x_line, x_column, out_outer, out_inner, out_line,
    LINES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Copy lines into rows that are padded with zeros, through tiles of LINES x COLUMNS."""
    outer = (tl.program_id(0) // inner).to(tl.int64)
    inside = (tl.program_id(0) % inner).to(tl.int64)
    line = (tl.program_id(1) * LINES + tl.arange(0, LINES))[:, None].to(tl.int64)
    column = (tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    source = x_ptr + outer * x_outer + inside * x_inner + line * x_line
    x = tl.load(
        source + column.to(tl.int64) * x_column, mask=(line < lines) & (column < width), other=0
    )
    target = out_ptr + outer * out_outer + inside * out_inner + line * out_line
    tl.store(target + column, x, mask=(line < lines) & (column < padded))


@kernel(sizes='row_taps column_taps length above skew')
def windows(
    weight_ptr, windows_ptr, row_group_ptr, column_group_ptr,
    row_taps, column_taps, length, above, skew, w_channel, w_row, w_column,
    COPIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows of weights between zeros, (C, copies, rows, length); copy q begins q places later."""
    channel, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    copy = tl.arange(0, COPIES)[:, None]
    place = (tl.program_id(2) * BLOCK + tl.arange(0, BLOCK))[None, :]
    a, b = row - above, place + copy - skew
    there = (a >= 0) & (a < row_taps) & (b >= 0) & (b < column_taps)
    row_group = tl.load(row_group_ptr + a, mask=(a >= 0) & (a < row_taps), other=0)
    column_group = tl.load(column_group_ptr + b, mask=there, other=0)
    source = weight_ptr + channel * w_channel + row_group * w_row + column_group * w_column
    weight = tl.load(source, mask=there, other=0)
    target = windows_ptr + ((channel * COPIES + copy) * tl.num_programs(1) + row) * length + place
    tl.store(target, weight, mask=place < length)


@kernel
def _patch(m, across, down):
    """Image, row and column of patches."""
    return (m // (down * across)).to(tl.int64), m // across % down, m % across


@kernel(
    sizes='patches across down height width vectors rows blocks before left steps x_image '
    'x_channel x_row out_image out_channel out_row'
)
def product(
    x_ptr, windows_ptr, out_ptr,
    patches, across, down, height, width, vectors, rows, blocks, before, left, steps,
    x_image, x_channel, x_row, out_image, out_channel, out_row, out_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, COPIES: tl.constexpr, PATCHES: tl.constexpr,
    INPUTS: tl.constexpr, CHANNEL_AXIS: tl.constexpr, SWAPPED: tl.constexpr, STORED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Pixels of patches of one channel; strides of x, ``vectors`` and ``left`` count vectors of 8.

    ``rows`` is the number of rows of the windows, ``steps`` vectors of 8 in one of them; STORED
    pixels are neighbours in memory, from a multiple of the number on.
    """
    channel = tl.program_id(CHANNEL_AXIS).to(tl.int64)
    m = tl.program_id(1 - CHANNEL_AXIS) * PATCHES + tl.arange(0, PATCHES)
    image, down_place, across_place = _patch(m, across, down)
    pixel = tl.arange(0, ROWS * COLUMNS)
    if SWAPPED:  # neighbours in memory are stored together
        r, v = pixel % ROWS, pixel // ROWS
    else:
        r, v = pixel // COLUMNS, pixel % COLUMNS
    u = tl.arange(0, INPUTS)

    top = down_place * ROWS - before
    line = image * x_image + channel * x_channel + top.to(tl.int64) * x_row
    x_row_ptr = x_ptr + line[:, None] * 8
    # the window of pixel v begins COLUMNS - 1 - v places on: in a copy, at one of its vectors
    shift = COLUMNS - 1 - v
    window = ((shift % COPIES) * rows + ROWS - 1 - r) * steps * 8 + shift // COPIES * COPIES
    windows_ptr += channel * COPIES * rows * steps * 8

    sums = tl.zeros([PATCHES, ROWS * COLUMNS], tl.float32)
    for block in range(blocks):
        column = (across_place * (COLUMNS // 8) - left)[:, None] * 8 + (block * INPUTS + u)[None, :]
        on_map = (column >= 0) & (column < vectors * 8)
        inputs_ptr = x_row_ptr + column
        weights_ptr = windows_ptr + window[None, :] + (block * INPUTS + u)[:, None]
        for s in range(rows - ROWS + 1):
            there = (m < patches) & (top + s >= 0) & (top + s < height)
            x = tl.load(inputs_ptr, mask=there[:, None] & on_map, other=0)
            weights = tl.load(weights_ptr)
            sums = tl.dot(x, weights, sums, input_precision=PRECISION)
            inputs_ptr += x_row * 8
            weights_ptr += steps * 8

    y = (down_place * ROWS)[:, None] + r[None, :]
    column = (across_place * COLUMNS)[:, None] + v[None, :]
    target = (
        channel * out_channel + (image * out_image)[:, None] + y * out_row + column * out_column
    )
    target = out_ptr + tl.multiple_of(target, (1, STORED))
    there = (m < patches)[:, None] & (y < height) & (column < width)
    tl.store(target, sums.to(out_ptr.dtype.element_ty), mask=there)


@kernel(
    sizes='patches across down height vectors blocks before left share taps skew x_image '
    'x_channel x_row grad_image grad_channel grad_row'
)
def weight_product(
    x_ptr, grad_ptr, partial_ptr,
    patches, across, down, height, vectors, blocks, before, left, share, taps, skew,
    x_image, x_channel, x_row, grad_image, grad_channel, grad_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PATCHES: tl.constexpr, INPUTS: tl.constexpr,
    DIAGONALS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the taps of one channel from row s of patches and a block of its columns.

    Strides, ``vectors`` and ``left`` count vectors of 8; ``share`` patches are one of the parts of
    the sum. The parts are (parts, C, rows, blocks, ROWS, taps). Of the diagonals of a block, tap 0
    is number ``skew`` in the first block, which begins with that of u - v = 1 - COLUMNS.
    """
    s, channel = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block, part = tl.program_id(2) % blocks, tl.program_id(2) // blocks
    pixel, u = tl.arange(0, ROWS * COLUMNS), tl.arange(0, INPUTS)
    r, v = pixel // COLUMNS, pixel % COLUMNS
    x_ptr += channel * x_channel * 8
    grad_ptr += channel * grad_channel * 8

    sums = tl.zeros([INPUTS, ROWS * COLUMNS], tl.float32)
    end = tl.minimum(part * share + share, patches)
    for first in range(part * share, end, PATCHES):
        m = first + tl.arange(0, PATCHES)
        image, down_place, across_place = _patch(m, across, down)
        row = down_place * ROWS - before + s
        column = (across_place * (COLUMNS // 8) - left)[None, :] * 8 + (block * INPUTS + u)[:, None]
        line = image * x_image + row.to(tl.int64) * x_row
        there = ((m < end) & (row >= 0) & (row < height))[None, :]
        there = there & (column >= 0) & (column < vectors * 8)
        x = tl.load(x_ptr + line[None, :] * 8 + column, mask=there, other=0)

        y = (down_place * ROWS)[:, None] + r[None, :]
        column = (across_place * (COLUMNS // 8))[:, None] * 8 + v[None, :]
        line = image[:, None] * grad_image + y.to(tl.int64) * grad_row
        there = (m < end)[:, None] & (y < height) & (column < vectors * 8)
        grad = tl.load(grad_ptr + line * 8 + column, mask=there, other=0)
        sums = tl.dot(x, grad, sums, input_precision=PRECISION)

    diagonal = tl.arange(0, DIAGONALS)[:, None]
    source = diagonal - (COLUMNS - 1) + v[None, :]
    there = (source >= 0) & (source < INPUTS)
    found = tl.where(there, tl.gather(sums, tl.where(there, source, 0), 0), 0.0)
    found = tl.sum(tl.reshape(found, [DIAGONALS, ROWS, COLUMNS]), 2)
    place = ((part * tl.num_programs(1) + channel) * tl.num_programs(0) + s) * blocks + block
    tap = diagonal + block * INPUTS - skew
    target = (place * ROWS + tl.arange(0, ROWS)[None, :]) * taps + tap
    tl.store(partial_ptr + target, found, mask=(tap >= 0) & (tap < taps))


@kernel(sizes='parts rows blocks columns taps widest skew')
def add_up(
    partial_ptr, out_ptr, row_first_ptr, column_first_ptr,
    parts, rows, blocks, columns, taps, widest, skew, out_channel, out_row, out_column,
    ROWS: tl.constexpr, INPUTS: tl.constexpr, DIAGONALS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights of one channel and group of rows from the parts of their sums."""
    channel, channels = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    group, column = tl.program_id(1), tl.arange(0, BLOCK)
    first = tl.load(column_first_ptr + column, mask=column < columns, other=0)
    end = tl.load(column_first_ptr + column + 1, mask=column < columns, other=0)
    sums = tl.zeros([BLOCK], tl.float32)
    for a in range(tl.load(row_first_ptr + group), tl.load(row_first_ptr + group + 1)):
        for piece in range(parts * blocks * ROWS):
            r, block, part = piece % ROWS, piece // ROWS % blocks, piece // ROWS // blocks
            place = (((part * channels + channel) * rows + a + r) * blocks + block) * ROWS + r
            for k in range(widest):
                diagonal = first + k + skew - block * INPUTS
                there = (first + k < end) & (diagonal >= 0) & (diagonal < DIAGONALS)
                sums += tl.load(partial_ptr + place * taps + first + k, mask=there, other=0.0)
    target = out_ptr + channel * out_channel + group * out_row + column * out_column
    tl.store(target, sums.to(out_ptr.dtype.element_ty), mask=column < columns)


@kernel(sizes='channels height width across row_taps column_taps before left')
def direct(
    x_ptr, weight_ptr, out_ptr, row_group_ptr, column_group_ptr,
    channels, height, width, across, row_taps, column_taps, before, left,
    x_image, x_channel, x_row, x_column, out_image, out_channel, out_row, out_column,
    w_channel, w_row, w_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A tile of ROWS x COLUMNS pixels and CHANNELS channels, tap by tap."""
    tile, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    y = (tile // across * ROWS + tl.arange(0, ROWS))[:, None, None]
    column = (tile % across * COLUMNS + tl.arange(0, COLUMNS))[None, :, None]
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, None, :].to(tl.int64)
    known = channel < channels
    x_ptr += image * x_image + channel * x_channel
    weight_ptr += channel * w_channel
    sums = tl.zeros([ROWS, COLUMNS, CHANNELS], tl.float32)
    for a in range(row_taps):
        row = y + a - before
        row_weight_ptr = weight_ptr + tl.load(row_group_ptr + a) * w_row
        line_ptr = x_ptr + row.to(tl.int64) * x_row
        inside = known & (row >= 0) & (row < height)
        for b in range(column_taps):
            place = column + b - left
            group = tl.load(column_group_ptr + b)
            weight = tl.load(row_weight_ptr + group * w_column, mask=known, other=0.0)
            there = inside & (place >= 0) & (place < width)
            x = tl.load(line_ptr + place.to(tl.int64) * x_column, mask=there, other=0.0)
            sums += x.to(tl.float32) * weight.to(tl.float32)
    target = out_ptr + image * out_image + channel * out_channel
    target += y.to(tl.int64) * out_row + column.to(tl.int64) * out_column
    there = known & (y < height) & (column < width)
    tl.store(target, sums.to(out_ptr.dtype.element_ty), mask=there)


@kernel(sizes='height width lines share blocks taps before left')
def direct_weight(
    x_ptr, grad_ptr, partial_ptr, height, width, lines, share, blocks, taps, before, left,
    x_image, x_channel, x_row, x_column, grad_image, grad_channel, grad_row, grad_column,
    TAPS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of TAPS taps in row a of one channel, from ``share`` rows of the maps."""
    a, channel = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block, part = tl.program_id(2) % blocks, tl.program_id(2) // blocks
    tap, column = tl.arange(0, TAPS), tl.arange(0, COLUMNS)
    x_ptr += channel * x_channel
    grad_ptr += channel * grad_channel
    sums = tl.zeros([TAPS, COLUMNS], tl.float32)
    for line in range(part * share, tl.minimum(part * share + share, lines)):
        image, y = (line // height).to(tl.int64), line % height
        row = y + a - before
        if (row >= 0) & (row < height):
            x_line_ptr = x_ptr + image * x_image + row.to(tl.int64) * x_row
            grad_line_ptr = grad_ptr + image * grad_image + y.to(tl.int64) * grad_row
            for first in range(0, width, COLUMNS):
                place = first + column
                source = grad_line_ptr + place.to(tl.int64) * grad_column
                grad = tl.load(source, mask=place < width, other=0.0)
                other = place[None, :] + (block * TAPS + tap)[:, None] - left
                source = x_line_ptr + other.to(tl.int64) * x_column
                x = tl.load(source, mask=(other >= 0) & (other < width), other=0.0)
                sums += x.to(tl.float32) * grad.to(tl.float32)[None, :]
    place = ((part * tl.num_programs(1) + channel) * tl.num_programs(0) + a) * blocks + block
    tap += block * TAPS
    tl.store(partial_ptr + place * taps + tap, tl.sum(sums, 1), mask=tap < taps)
