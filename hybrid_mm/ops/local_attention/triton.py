"""Local attention in Triton kernels: one for the forward pass, two for the backward pass.

Floor: with n queries that see t keys each, n t (d + d_v) multiplications forward and
n t (3 d + 2 d_v) backward (the logits again); every input is read and every result written once.

All patterns are products of two axes, on each of which a query sees consecutive positions of a
layout (:mod:`.lanes`); the kernels read them from small tables, so that there is one kernel and no
case per pattern. A program takes a tile of queries of one head and walks over the rectangle of
positions that any of them sees, with a softmax that is rescaled as it goes; the logarithm of its
sum is kept. Terms of relative tables: offsets in a tile are few, so the queries are multiplied with
the vectors that occur, and every key picks its product. The bias: the entries that occur, spread
over queries and keys by two products with matrices of 0 and 1; its gradient goes the same way back.

The backward pass computes the logits again, once for tiles of queries (gradients of queries and of
the tables) and once for tiles of keys (gradients of keys and values, no atomics). What a
program contributes to a table is summed up in it first, then added to one of a few copies of the
table with atomics, whose order is open; the copies are added up in the end.
"""

from hybrid_mm.ops.kernels import kernel, tl
from hybrid_mm.ops.local_attention.parts import (
    add_bias_grad,
    add_table_grad,
    bias_of_pairs,
    diagonal_sums,
    load,
    logits,
    pixels,
    products,
    read_queries,
    relative,
    relative_grad,
    slab,
    store,
)

# arguments that belong together are on one line
# fmt: off


@kernel(
    sizes='height width bias_h bias_rows bias_columns rel_h_h rel_h_length rel_w_h rel_w_length '
    'row_number column_number'
)
def attend(
    q, q_n, q_h, q_y, q_x, q_d,
    k, k_n, k_h, k_y, k_x, k_d,
    v, v_n, v_h, v_y, v_x, v_d,
    out, lse, heads, height, width, scale,
    bias, bias_h, bias_rows, bias_columns,
    rel_h, rel_h_h, rel_h_length,
    rel_w, rel_w_h, rel_w_length,
    row_slots, row_tiles, row_source, row_number,
    column_slots, column_tiles, column_source, column_number,
    D: tl.constexpr, D_WIDTH: tl.constexpr, Q_PLANES: tl.constexpr, K_PLANES: tl.constexpr,
    DV: tl.constexpr, DV_WIDTH: tl.constexpr, V_PLANES: tl.constexpr,
    QUERY_ROWS: tl.constexpr, QUERY_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ROW_ENTRIES: tl.constexpr, COLUMN_ENTRIES: tl.constexpr,
    DENSE: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):
    """Attention of a tile of queries.

    ``out`` is (N, H', W', heads, DV), ``lse`` (N, heads, H', W') in units of log 2.
    """
    tiles = row_number * column_number
    tile, pair = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row_tile, column_tile = tile // column_number, tile % column_number
    image, head = pair // heads, pair % heads
    lane = tl.arange(0, QUERY_ROWS * QUERY_COLUMNS)
    y, row_start, row_shift = read_queries(
        row_slots, row_tile * QUERY_ROWS, lane // QUERY_COLUMNS, QUERY_ROWS)
    x, column_start, column_shift = read_queries(
        column_slots, column_tile * QUERY_COLUMNS, lane % QUERY_COLUMNS, QUERY_COLUMNS)
    there = (y >= 0) & (x >= 0)
    queries = load(pixels(q, image, head, q_n, q_h, q_y, q_x, y, x), there, q_d,
                   D, D_WIDTH, Q_PLANES)

    top, bottom = tl.load(row_tiles + row_tile * 4), tl.load(row_tiles + row_tile * 4 + 1)
    left = tl.load(column_tiles + column_tile * 4)
    right = tl.load(column_tiles + column_tile * 4 + 1)
    row_count = tl.load(row_tiles + row_tile * 4 + 2)
    row_low = tl.load(row_tiles + row_tile * 4 + 3)
    column_count = tl.load(column_tiles + column_tile * 4 + 2)
    column_low = tl.load(column_tiles + column_tile * 4 + 3)
    row_index = (row_shift - row_low)[:, None] + tl.arange(0, ROWS)[None, :]
    column_index = (column_shift - column_low)[:, None] + tl.arange(0, COLUMNS)[None, :]
    key_lane = tl.arange(0, ROWS * COLUMNS)
    across = tl.cdiv(right - left, COLUMNS)
    if bias is not None:
        # entries of a row of queries and one of keys, and of columns
        i, j = tl.arange(0, QUERY_ROWS * ROWS), tl.arange(0, QUERY_COLUMNS * COLUMNS)
        row_entry = tl.load(row_slots + (row_tile * QUERY_ROWS + i // ROWS) * 3 + 2)
        row_entry = row_entry - row_low + i % ROWS
        column_entry = tl.load(column_slots + (column_tile * QUERY_COLUMNS + j // COLUMNS) * 3 + 2)
        column_entry = column_entry - column_low + j % COLUMNS

    highest = tl.full((QUERY_ROWS * QUERY_COLUMNS,), -1e29, tl.float32)
    total = tl.zeros((QUERY_ROWS * QUERY_COLUMNS,), tl.float32)
    result = tl.zeros((QUERY_ROWS * QUERY_COLUMNS, DV_WIDTH), tl.float32)
    for number in range(tl.cdiv(bottom - top, ROWS) * across):
        first_row, first_column = top + number // across * ROWS, left + number % across * COLUMNS
        row, column = first_row + key_lane // COLUMNS, first_column + key_lane % COLUMNS
        valid = (row < bottom) & (column < right)
        key_y = tl.load(row_source + row, mask=row < bottom, other=-1)
        key_x = tl.load(column_source + column, mask=column < right, other=-1)
        on_map = (key_y >= 0) & (key_x >= 0)
        keys = load(pixels(k, image, head, k_n, k_h, k_y, k_x, key_y, key_x), on_map, k_d,
                    D, D_WIDTH, K_PLANES)
        bias_term, row_term, column_term = None, None, None
        if bias is not None:
            bias_term = bias_of_pairs(
                bias + head * bias_h, row_low + first_row, column_low + first_column,
                bias_rows, bias_columns, row_entry, column_entry, queries.dtype,
                QUERY_ROWS, QUERY_COLUMNS, ROWS, COLUMNS, ROW_ENTRIES, COLUMN_ENTRIES, PRECISION)
        if rel_h is not None:
            vectors = slab(rel_h + head * rel_h_h, row_low + first_row, rel_h_length,
                           queries.dtype, D, D_WIDTH, ROW_ENTRIES)
            row_term = relative(queries, vectors, row_index, PRECISION)
        if rel_w is not None:
            vectors = slab(rel_w + head * rel_w_h, column_low + first_column, rel_w_length,
                           queries.dtype, D, D_WIDTH, COLUMN_ENTRIES)
            column_term = relative(queries, vectors, column_index, PRECISION)
        if MASKED:
            valid = on_map
        s = logits(queries, keys, scale, valid, row, column,
                   row_start, row_count, column_start, column_count, bias_term, row_term,
                   column_term, ROWS, COLUMNS, DENSE, False, PRECISION)
        before, highest = highest, tl.maximum(highest, tl.max(s, 1))
        p = tl.exp2(s - highest[:, None])
        shrink = tl.exp2(before - highest)
        total = total * shrink + tl.sum(p, 1)
        values = load(pixels(v, image, head, v_n, v_h, v_y, v_x, key_y, key_x), on_map, v_d,
                      DV, DV_WIDTH, V_PLANES)
        result = result * shrink[:, None]
        result = tl.dot(p.to(values.dtype), values, result, input_precision=PRECISION)

    total = tl.where(there, total, 1.0)
    pixel = (image.to(tl.int64) * height + y) * width + x
    store(out + (pixel * heads + head) * DV, result / total[:, None], there, 1,
          DV, DV_WIDTH, False)
    lse += pair.to(tl.int64) * height * width
    tl.store(lse + y * width + x, highest + tl.log2(total), mask=there)


@kernel(
    sizes='height width bias_h bias_rows bias_columns rel_h_h rel_h_length rel_w_h rel_w_length '
    'row_number column_number copies copy_stride'
)
def differentiate_queries(
    q, q_n, q_h, q_y, q_x, q_d,
    k, k_n, k_h, k_y, k_x, k_d,
    v, v_n, v_h, v_y, v_x, v_d,
    grad, g_n, g_h, g_y, g_x, g_d,
    grad_q, gq_n, gq_h, gq_y, gq_x, gq_d,
    out, lse, delta, heads, height, width, scale,
    bias, bias_h, bias_rows, bias_columns,
    rel_h, rel_h_h, rel_h_length,
    rel_w, rel_w_h, rel_w_length,
    grad_bias, grad_rel_h, grad_rel_w, copies, copy_stride,
    row_slots, row_tiles, row_source, row_number,
    column_slots, column_tiles, column_source, column_number,
    D: tl.constexpr, D_WIDTH: tl.constexpr, Q_PLANES: tl.constexpr, K_PLANES: tl.constexpr,
    DV: tl.constexpr, DV_WIDTH: tl.constexpr, V_PLANES: tl.constexpr, G_PLANES: tl.constexpr,
    QUERY_ROWS: tl.constexpr, QUERY_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ROW_ENTRIES: tl.constexpr, COLUMN_ENTRIES: tl.constexpr,
    DENSE: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):
    """Gradients of a tile of queries, and what it adds to those of the tables.

    Also ``delta`` (N, heads, H', W'), the product of result and gradient, for the next kernel.
    """
    tiles = row_number * column_number
    tile, pair = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row_tile, column_tile = tile // column_number, tile % column_number
    image, head = pair // heads, pair % heads
    lane = tl.arange(0, QUERY_ROWS * QUERY_COLUMNS)
    y, row_start, row_shift = read_queries(
        row_slots, row_tile * QUERY_ROWS, lane // QUERY_COLUMNS, QUERY_ROWS)
    x, column_start, column_shift = read_queries(
        column_slots, column_tile * QUERY_COLUMNS, lane % QUERY_COLUMNS, QUERY_COLUMNS)
    there = (y >= 0) & (x >= 0)
    queries = load(pixels(q, image, head, q_n, q_h, q_y, q_x, y, x), there, q_d,
                   D, D_WIDTH, Q_PLANES)
    grads = load(pixels(grad, image, head, g_n, g_h, g_y, g_x, y, x), there, g_d,
                 DV, DV_WIDTH, G_PLANES)
    pixel = (image.to(tl.int64) * height + y) * width + x
    results = load(out + (pixel * heads + head) * DV, there, 1, DV, DV_WIDTH, False)
    before = pair.to(tl.int64) * height * width
    # probabilities of slots without a query are 0
    log_total = tl.load(lse + before + (y * width + x), mask=there, other=1e30)
    product = tl.sum(results.to(tl.float32) * grads.to(tl.float32), 1)
    tl.store(delta + before + (y * width + x), product, mask=there)

    top, bottom = tl.load(row_tiles + row_tile * 4), tl.load(row_tiles + row_tile * 4 + 1)
    left = tl.load(column_tiles + column_tile * 4)
    right = tl.load(column_tiles + column_tile * 4 + 1)
    row_count = tl.load(row_tiles + row_tile * 4 + 2)
    row_low = tl.load(row_tiles + row_tile * 4 + 3)
    column_count = tl.load(column_tiles + column_tile * 4 + 2)
    column_low = tl.load(column_tiles + column_tile * 4 + 3)
    row_index = (row_shift - row_low)[:, None] + tl.arange(0, ROWS)[None, :]
    column_index = (column_shift - column_low)[:, None] + tl.arange(0, COLUMNS)[None, :]
    key_lane = tl.arange(0, ROWS * COLUMNS)
    across = tl.cdiv(right - left, COLUMNS)
    if bias is not None:
        # entries of a row of queries and one of keys, and of columns
        i, j = tl.arange(0, QUERY_ROWS * ROWS), tl.arange(0, QUERY_COLUMNS * COLUMNS)
        row_entry = tl.load(row_slots + (row_tile * QUERY_ROWS + i // ROWS) * 3 + 2)
        row_entry = row_entry - row_low + i % ROWS
        column_entry = tl.load(column_slots + (column_tile * QUERY_COLUMNS + j // COLUMNS) * 3 + 2)
        column_entry = column_entry - column_low + j % COLUMNS
    copy = (tl.program_id(0) % copies) * copy_stride

    total = tl.zeros((QUERY_ROWS * QUERY_COLUMNS, D_WIDTH), tl.float32)
    for number in range(tl.cdiv(bottom - top, ROWS) * across):
        first_row, first_column = top + number // across * ROWS, left + number % across * COLUMNS
        row, column = first_row + key_lane // COLUMNS, first_column + key_lane % COLUMNS
        valid = (row < bottom) & (column < right)
        key_y = tl.load(row_source + row, mask=row < bottom, other=-1)
        key_x = tl.load(column_source + column, mask=column < right, other=-1)
        on_map = (key_y >= 0) & (key_x >= 0)
        keys = load(pixels(k, image, head, k_n, k_h, k_y, k_x, key_y, key_x), on_map, k_d,
                    D, D_WIDTH, K_PLANES)
        bias_term, row_term, column_term = None, None, None
        if bias is not None:
            bias_term = bias_of_pairs(
                bias + head * bias_h, row_low + first_row, column_low + first_column,
                bias_rows, bias_columns, row_entry, column_entry, queries.dtype,
                QUERY_ROWS, QUERY_COLUMNS, ROWS, COLUMNS, ROW_ENTRIES, COLUMN_ENTRIES, PRECISION)
        if rel_h is not None:
            row_vectors = slab(rel_h + head * rel_h_h, row_low + first_row, rel_h_length,
                               queries.dtype, D, D_WIDTH, ROW_ENTRIES)
            row_term = relative(queries, row_vectors, row_index, PRECISION)
        if rel_w is not None:
            column_vectors = slab(rel_w + head * rel_w_h, column_low + first_column, rel_w_length,
                                  queries.dtype, D, D_WIDTH, COLUMN_ENTRIES)
            column_term = relative(queries, column_vectors, column_index, PRECISION)
        if MASKED:
            valid = on_map
        s = logits(queries, keys, scale, valid, row, column,
                   row_start, row_count, column_start, column_count, bias_term, row_term,
                   column_term, ROWS, COLUMNS, DENSE, False, PRECISION)
        values = load(pixels(v, image, head, v_n, v_h, v_y, v_x, key_y, key_x), on_map, v_d,
                      DV, DV_WIDTH, V_PLANES)
        grad_p = products(grads, values, False, PRECISION)
        grad_s = tl.exp2(s - log_total[:, None]) * (grad_p - product[:, None])
        total = tl.dot((grad_s * scale).to(keys.dtype), keys, total, input_precision=PRECISION)
        if rel_h is not None:
            part = relative_grad(grad_s, row_shift - row_low, 0, ROWS, COLUMNS, ROW_ENTRIES)
            part = part.to(queries.dtype)
            total = tl.dot(part, row_vectors, total, input_precision=PRECISION)
            if grad_rel_h is not None:
                add_table_grad(grad_rel_h + copy + head * rel_h_h, part, queries,
                               row_low + first_row, rel_h_length,
                               D, D_WIDTH, ROW_ENTRIES, PRECISION)
        if rel_w is not None:
            part = relative_grad(grad_s, column_shift - column_low, 1, ROWS, COLUMNS,
                                 COLUMN_ENTRIES)
            part = part.to(queries.dtype)
            total = tl.dot(part, column_vectors, total, input_precision=PRECISION)
            if grad_rel_w is not None:
                add_table_grad(grad_rel_w + copy + head * rel_w_h, part, queries,
                               column_low + first_column, rel_w_length,
                               D, D_WIDTH, COLUMN_ENTRIES, PRECISION)
        if grad_bias is not None:
            part = diagonal_sums(grad_s, row_entry, column_entry, queries.dtype,
                                 QUERY_ROWS, QUERY_COLUMNS, ROWS, COLUMNS,
                                 ROW_ENTRIES, COLUMN_ENTRIES, PRECISION)
            add_bias_grad(grad_bias + copy + head * bias_h, part,
                          row_low + first_row, column_low + first_column,
                          bias_rows, bias_columns, ROW_ENTRIES, COLUMN_ENTRIES)

    store(pixels(grad_q, image, head, gq_n, gq_h, gq_y, gq_x, y, x), total, there, gq_d,
          D, D_WIDTH, Q_PLANES)


@kernel(
    sizes='height width bias_h bias_rows bias_columns rel_h_h rel_h_length rel_w_h rel_w_length '
    'row_number column_number row_copies column_copies'
)
def differentiate_keys(
    q, q_n, q_h, q_y, q_x, q_d,
    k, k_n, k_h, k_y, k_x, k_d,
    v, v_n, v_h, v_y, v_x, v_d,
    grad, g_n, g_h, g_y, g_x, g_d,
    grad_k, gk_n, gk_h, gk_y, gk_x, gk_d,
    grad_v, gv_n, gv_h, gv_y, gv_x, gv_d,
    lse, delta, heads, height, width, scale,
    bias, bias_h, bias_rows, bias_columns,
    rel_h, rel_h_h, rel_h_length,
    rel_w, rel_w_h, rel_w_length,
    row_keys, row_positions, row_tiles, row_queries, row_number, row_copies,
    column_keys, column_positions, column_tiles, column_queries, column_number, column_copies,
    D: tl.constexpr, D_WIDTH: tl.constexpr, Q_PLANES: tl.constexpr, K_PLANES: tl.constexpr,
    DV: tl.constexpr, DV_WIDTH: tl.constexpr, V_PLANES: tl.constexpr, G_PLANES: tl.constexpr,
    QUERY_ROWS: tl.constexpr, QUERY_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ROW_ENTRIES: tl.constexpr, COLUMN_ENTRIES: tl.constexpr,
    DENSE: tl.constexpr, PRECISION: tl.constexpr,
):
    """Gradients of a tile of keys and values: a walk over the queries that see any copy of it."""
    tiles = row_number * column_number
    tile, pair = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row_tile, column_tile = tile // column_number, tile % column_number
    image, head = pair // heads, pair % heads
    key_lane = tl.arange(0, ROWS * COLUMNS)
    row_slot, column_slot = row_tile * ROWS, column_tile * COLUMNS
    key_y = tl.load(row_keys + row_slot + key_lane // COLUMNS)
    key_x = tl.load(column_keys + column_slot + key_lane % COLUMNS)
    on_map = (key_y >= 0) & (key_x >= 0)
    keys = load(pixels(k, image, head, k_n, k_h, k_y, k_x, key_y, key_x), on_map, k_d,
                D, D_WIDTH, K_PLANES)
    values = load(pixels(v, image, head, v_n, v_h, v_y, v_x, key_y, key_x), on_map, v_d,
                  DV, DV_WIDTH, V_PLANES)
    lane = tl.arange(0, QUERY_ROWS * QUERY_COLUMNS)
    lse += pair.to(tl.int64) * height * width
    delta += pair.to(tl.int64) * height * width
    if bias is not None:
        # lanes of a row of queries and one of keys, and of columns
        i, j = tl.arange(0, QUERY_ROWS * ROWS), tl.arange(0, QUERY_COLUMNS * COLUMNS)

    of_keys = tl.zeros((ROWS * COLUMNS, D_WIDTH), tl.float32)
    of_values = tl.zeros((ROWS * COLUMNS, DV_WIDTH), tl.float32)
    for copy in range(row_copies * column_copies):
        row_copy, column_copy = copy // column_copies, copy % column_copies
        row_place = row_positions + row_copy * row_number * ROWS + row_slot
        column_place = column_positions + column_copy * column_number * COLUMNS + column_slot
        row, column = tl.load(row_place + key_lane // COLUMNS), tl.load(
            column_place + key_lane % COLUMNS)
        valid = (row >= 0) & (column >= 0)
        seen_by = row_tiles + (row_copy * row_number + row_tile) * 4
        top, down = tl.load(seen_by), tl.load(seen_by + 1)
        row_count, row_first = tl.load(seen_by + 2), tl.load(seen_by + 3)
        seen_by = column_tiles + (column_copy * column_number + column_tile) * 4
        left, across = tl.load(seen_by), tl.load(seen_by + 1)
        column_count, column_first = tl.load(seen_by + 2), tl.load(seen_by + 3)
        if rel_h is not None:
            row_offset = tl.load(row_place + tl.arange(0, ROWS)) - row_first
        if rel_w is not None:
            column_offset = tl.load(column_place + tl.arange(0, COLUMNS)) - column_first
        columns = tl.cdiv(across, QUERY_COLUMNS)
        for number in range(tl.cdiv(down, QUERY_ROWS) * columns):
            skipped_rows = number // columns * QUERY_ROWS
            skipped_columns = number % columns * QUERY_COLUMNS
            y, row_start, row_shift = read_queries(
                row_queries, top, skipped_rows + lane // QUERY_COLUMNS, down)
            x, column_start, column_shift = read_queries(
                column_queries, left, skipped_columns + lane % QUERY_COLUMNS, across)
            there = (y >= 0) & (x >= 0)
            queries = load(pixels(q, image, head, q_n, q_h, q_y, q_x, y, x), there, q_d,
                           D, D_WIDTH, Q_PLANES)
            # shifts fall from a query to the next: the last one has the lowest
            last = top + tl.minimum(skipped_rows + QUERY_ROWS, down) - 1
            row_low = tl.load(row_queries + last * 3 + 2)
            last = left + tl.minimum(skipped_columns + QUERY_COLUMNS, across) - 1
            column_low = tl.load(column_queries + last * 3 + 2)
            bias_term, row_term, column_term = None, None, None
            if bias is not None:
                _, _, shift = read_queries(row_queries, top, skipped_rows + i // ROWS, down)
                row_entry = shift - row_low + tl.load(row_place + i % ROWS) - row_first
                _, _, shift = read_queries(column_queries, left, skipped_columns + j // COLUMNS,
                                              across)
                column_entry = shift - column_low + tl.load(column_place + j % COLUMNS)
                bias_term = bias_of_pairs(
                    bias + head * bias_h, row_low + row_first, column_low + column_first,
                    bias_rows, bias_columns, row_entry, column_entry - column_first,
                    queries.dtype, QUERY_ROWS, QUERY_COLUMNS, ROWS, COLUMNS,
                    ROW_ENTRIES, COLUMN_ENTRIES, PRECISION)
            if rel_h is not None:
                vectors = slab(rel_h + head * rel_h_h, row_low + row_first, rel_h_length,
                               queries.dtype, D, D_WIDTH, ROW_ENTRIES)
                index = (row_shift - row_low)[:, None] + row_offset[None, :]
                index = tl.minimum(tl.maximum(index, 0), ROW_ENTRIES - 1)
                row_term = relative(queries, vectors, index, PRECISION)
            if rel_w is not None:
                vectors = slab(rel_w + head * rel_w_h, column_low + column_first, rel_w_length,
                               queries.dtype, D, D_WIDTH, COLUMN_ENTRIES)
                index = (column_shift - column_low)[:, None] + column_offset[None, :]
                index = tl.minimum(tl.maximum(index, 0), COLUMN_ENTRIES - 1)
                column_term = relative(queries, vectors, index, PRECISION)
            s = logits(queries, keys, scale, valid, row, column,
                       row_start, row_count, column_start, column_count, bias_term, row_term,
                       column_term, ROWS, COLUMNS, DENSE, True, PRECISION)
            grads = load(pixels(grad, image, head, g_n, g_h, g_y, g_x, y, x), there, g_d,
                         DV, DV_WIDTH, G_PLANES)
            log_total = tl.load(lse + y * width + x, mask=there, other=1e30)
            product = tl.load(delta + y * width + x, mask=there, other=0.0)
            p = tl.exp2(s - log_total[:, None])
            of_values = tl.dot(tl.trans(p.to(grads.dtype)), grads, of_values,
                               input_precision=PRECISION)
            grad_p = products(grads, values, True, PRECISION)
            grad_s = p * (grad_p - product[:, None])
            of_keys = tl.dot(tl.trans(grad_s.to(queries.dtype)), queries, of_keys,
                             input_precision=PRECISION)

    store(pixels(grad_k, image, head, gk_n, gk_h, gk_y, gk_x, key_y, key_x), of_keys * scale,
          on_map, gk_d, D, D_WIDTH, K_PLANES)
    store(pixels(grad_v, image, head, gv_n, gv_h, gv_y, gv_x, key_y, key_x), of_values,
          on_map, gv_d, DV, DV_WIDTH, V_PLANES)

# fmt: on
