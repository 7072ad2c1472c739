"""What the Triton kernels of local attention share: loads, logits, gradients of the tables.

Sizes in capitals are constants, the same in all functions. Queries of a tile are lanes, rows
first; so are the positions of a rectangle. ``row_start`` and the like are what :mod:`.lanes` says
of every query of a tile, one number per lane.
"""

from hybrid_mm.ops.kernels import kernel, tl


@kernel
def read_queries(table, first, lane, limit):
    """Query (-1: none), start and shift of the lanes below a limit; others see nothing."""
    entry, there = table + (first + lane) * 3, lane < limit
    query = tl.load(entry, mask=there, other=-1)
    start = tl.load(entry + 1, mask=there, other=1 << 30)
    return query, start, tl.load(entry + 2, mask=there, other=0)


@kernel
def pixels(x, image, head, stride_n, stride_h, stride_y, stride_x, row, column):
    """Pointers to the vectors of pixels of a map; maps may have more than 2^31 numbers."""
    x += image.to(tl.int64) * stride_n + head.to(tl.int64) * stride_h
    return x + (row.to(tl.int64) * stride_y + column.to(tl.int64) * stride_x)


@kernel
def load(x, there, stride, D: tl.constexpr, WIDTH: tl.constexpr, PLANES: tl.constexpr):
    """Vectors of D numbers at pointers x (L,), as (L, WIDTH); zeros where not ``there``.

    In the memory of ``PLANES`` (NCHW) neighbours are pixels, not channels: neighbouring threads
    read neighbouring pixels.
    """
    d = tl.arange(0, WIDTH)
    if PLANES:
        inside = there[None, :] & (d < D)[:, None]
        value = tl.trans(tl.load(x[None, :] + (d * stride)[:, None], mask=inside, other=0.0))
    else:
        inside = there[:, None] & (d < D)[None, :]
        value = tl.load(x[:, None] + (d * stride)[None, :], mask=inside, other=0.0)
    if value.dtype == tl.float64:  # in the interpreter only
        value = value.to(tl.float32)
    return value


@kernel
def store(x, value, there, stride, D: tl.constexpr, WIDTH: tl.constexpr, PLANES: tl.constexpr):
    """Inverse of :func:`load`."""
    d = tl.arange(0, WIDTH)
    value = value.to(x.dtype.element_ty)
    if PLANES:
        inside = there[None, :] & (d < D)[:, None]
        tl.store(x[None, :] + (d * stride)[:, None], tl.trans(value), mask=inside)
    else:
        inside = there[:, None] & (d < D)[None, :]
        tl.store(x[:, None] + (d * stride)[None, :], value, mask=inside)


@kernel
def within(position, start, count):
    """Which positions (keys,) queries see along an axis, (queries, keys)."""
    tap = position[None, :] - start[:, None]
    # negative numbers are large ones without a sign
    return tap.to(tl.uint32, bitcast=True) < count.to(tl.uint32)


@kernel
def slab(table, low, length, dtype: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
         ENTRIES: tl.constexpr):  # fmt: skip
    """Vectors of a relative table from the offset ``low`` on, (ENTRIES, WIDTH)."""
    entry = low + length // 2 + tl.arange(0, ENTRIES)
    there = (entry >= 0) & (entry < length)
    return load(table + entry * D, there, 1, D, WIDTH, False).to(dtype)


@kernel
def relative(q, vectors, index, PRECISION: tl.constexpr):  # noqa: D417
    """Products of queries with vectors of a table, each position reading that of its offset.

    Args:
        q: (queries, WIDTH).
        vectors: Those that occur, (ENTRIES, WIDTH).
        index: Which of them, (queries, positions of the axis).
    """
    product = tl.dot(q, tl.trans(vectors), input_precision=PRECISION)
    return tl.gather(product, index, 1) * 1.4426950408889634


@kernel
def products(q, k, BY_KEYS: tl.constexpr, PRECISION: tl.constexpr):
    """Products of queries and keys, (queries, keys).

    ``BY_KEYS``: threads hold keys and their products with all queries, which is how sums over
    queries need them.
    """
    if BY_KEYS:
        value = tl.trans(tl.dot(k, tl.trans(q), input_precision=PRECISION))
    else:
        value = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    return value


@kernel
def logits(  # noqa: D417
    q, k, scale, valid, row, column,
    row_start, row_count, column_start, column_count, bias, row_term, column_term,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DENSE: tl.constexpr, BY_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits in units of log 2, (queries, keys); very low where a query does not see a key.

    Args:
        q: (queries, WIDTH).
        k: (keys, WIDTH), ROWS * COLUMNS of them.
        scale: Factor of the products.
        valid: Which keys there are.
        row: Position of every key on the axis of rows.
        column: Likewise of columns.
        row_start: First position that a query sees on the axis of rows.
        row_count: Number of positions that every query sees.
        column_start: Likewise of columns.
        column_count: Likewise.
        bias: What is added, (queries, keys), or None.
        row_term: Relative term per query and row of keys, or None.
        column_term: Likewise.
        DENSE: Every query sees every valid key.
        BY_KEYS: See :func:`products`.
    """
    s = products(q, k, BY_KEYS, PRECISION) * (scale * 1.4426950408889634)
    if row_term is not None:
        s = tl.reshape(s, (s.shape[0], ROWS, COLUMNS)) + row_term[:, :, None]
        s = tl.reshape(s, (s.shape[0], ROWS * COLUMNS))
    if column_term is not None:
        s = tl.reshape(s, (s.shape[0], ROWS, COLUMNS)) + column_term[:, None, :]
        s = tl.reshape(s, (s.shape[0], ROWS * COLUMNS))
    seen = valid[None, :]
    if not DENSE:
        seen = seen & within(row, row_start, row_count)
        seen = seen & within(column, column_start, column_count)
    if bias is not None:
        s += bias * 1.4426950408889634
    return tl.where(seen, s, -1e30)


@kernel
def relative_grad(grad, shift, axis: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # noqa: D417
                  ENTRIES: tl.constexpr):  # fmt: skip
    """Gradient of the products in :func:`relative` from that of the logits, (queries, ENTRIES).

    Args:
        grad: (queries, keys), of keys that lie side by side.
        shift: Entry that a query reads for the first of them, (queries,).
        axis: Of a table for rows 0, for columns 1.
    """
    grad = tl.reshape(grad, (grad.shape[0], ROWS, COLUMNS))
    grad = tl.sum(grad, 2) if axis == 0 else tl.sum(grad, 1)
    place = tl.arange(0, ENTRIES)[None, :] - shift[:, None]
    last: tl.constexpr = grad.shape[1] - 1
    inside = (place >= 0) & (place <= last)
    return tl.where(inside, tl.gather(grad, tl.minimum(tl.maximum(place, 0), last), 1), 0.0)


@kernel
def add_table_grad(target, grad, q, low, length, D: tl.constexpr, WIDTH: tl.constexpr,
                   ENTRIES: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Add what queries contribute to the gradient of a relative table, from ``low`` on."""
    value = tl.dot(tl.trans(grad), q, input_precision=PRECISION)
    entry, d = low + length // 2 + tl.arange(0, ENTRIES), tl.arange(0, WIDTH)
    inside = ((entry >= 0) & (entry < length))[:, None] & (d < D)[None, :]
    tl.atomic_add(target + entry[:, None] * D + d[None, :], value, mask=inside, sem='relaxed')


@kernel
def ones(entry, ENTRIES: tl.constexpr):
    """A 1 for the entry of each lane, 0 elsewhere, (lanes, ENTRIES)."""
    return tl.where(entry[:, None] == tl.arange(0, ENTRIES)[None, :], 1.0, 0.0)


@kernel
def bias_of_pairs(table, row_low, column_low, rows, columns, row_entry, column_entry,  # noqa: D417
                  dtype: tl.constexpr, QUERY_ROWS: tl.constexpr, QUERY_COLUMNS: tl.constexpr,
                  ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                  ROW_ENTRIES: tl.constexpr, COLUMN_ENTRIES: tl.constexpr,
                  PRECISION: tl.constexpr):  # fmt: skip
    """Bias of queries and keys, (queries, keys), by products with 0 and 1.

    The few entries that occur are read once; to gather one for every pair would take a third of
    the registers.

    Args:
        table: Pointer to the entries of a head.
        row_low: Lowest row offset.
        column_low: Likewise.
        rows: Entries of the table.
        columns: Likewise.
        row_entry: Row offset of a row of queries and a row of keys, from the lowest one on,
            (QUERY_ROWS * ROWS,).
        column_entry: Likewise for columns.
        dtype: Type of the products.
    """
    row = row_low + rows // 2 + tl.arange(0, ROW_ENTRIES)
    column = column_low + columns // 2 + tl.arange(0, COLUMN_ENTRIES)
    inside_rows, inside_columns = (row >= 0) & (row < rows), (column >= 0) & (column < columns)
    inside = inside_rows[:, None] & inside_columns[None, :]
    entries = tl.load(table + row[:, None] * columns + column[None, :], mask=inside, other=0.0)
    entries = entries.to(tl.float32)
    # what hides a key, such as -inf in a table of single precision: 0 times it is no number
    most: tl.constexpr = 65504.0 if dtype == tl.float16 else 1e28
    entries = tl.where(entries < -most, -most, entries)
    entries = tl.where(entries > most, most, entries)
    left, right = ones(row_entry, ROW_ENTRIES).to(dtype), ones(column_entry, COLUMN_ENTRIES)
    half = tl.dot(left, entries.to(dtype), input_precision=PRECISION).to(dtype)
    value = tl.dot(half, tl.trans(right.to(dtype)), input_precision=PRECISION).to(dtype)
    value = tl.permute(tl.reshape(value, (QUERY_ROWS, ROWS, QUERY_COLUMNS, COLUMNS)), (0, 2, 1, 3))
    return tl.reshape(value, (QUERY_ROWS * QUERY_COLUMNS, ROWS * COLUMNS)).to(tl.float32)


@kernel
def diagonal_sums(grad, row_entry, column_entry, dtype: tl.constexpr,
                  QUERY_ROWS: tl.constexpr, QUERY_COLUMNS: tl.constexpr,
                  ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                  ROW_ENTRIES: tl.constexpr, COLUMN_ENTRIES: tl.constexpr,
                  PRECISION: tl.constexpr):  # fmt: skip
    """Sums of a gradient (queries, keys) by row and column offset, as products with 0 and 1.

    The transpose of :func:`bias_of_pairs`.
    """
    grad = tl.reshape(grad, (QUERY_ROWS, QUERY_COLUMNS, ROWS, COLUMNS))
    grad = tl.permute(grad, (0, 2, 1, 3))
    grad = tl.reshape(grad, (QUERY_ROWS * ROWS, QUERY_COLUMNS * COLUMNS)).to(dtype)
    left, right = ones(row_entry, ROW_ENTRIES).to(dtype), ones(column_entry, COLUMN_ENTRIES)
    half = tl.dot(tl.trans(left), grad, input_precision=PRECISION).to(dtype)
    return tl.dot(half, right.to(dtype), input_precision=PRECISION)


@kernel
def add_bias_grad(target, value, row_low, column_low, rows, columns,
                  ROW_ENTRIES: tl.constexpr, COLUMN_ENTRIES: tl.constexpr):  # fmt: skip
    """Add sums by offset, from ``row_low`` and ``column_low`` on, to the gradient of the bias."""
    row = row_low + rows // 2 + tl.arange(0, ROW_ENTRIES)
    column = column_low + columns // 2 + tl.arange(0, COLUMN_ENTRIES)
    inside_rows, inside_columns = (row >= 0) & (row < rows), (column >= 0) & (column < columns)
    inside = inside_rows[:, None] & inside_columns[None, :]
    tl.atomic_add(target + row[:, None] * columns + column[None, :], value, mask=inside,
                  sem='relaxed')  # fmt: skip
