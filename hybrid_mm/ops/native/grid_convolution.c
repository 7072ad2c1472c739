/* Depthwise convolution whose taps share weights over the boxes of a grid, and its weight gradient.
 *
 *   y[p, q] = sum_ab w[a, b] sum_{d in rows a, e in columns b} x[p + d, q + e]     (zero outside)
 *
 * Sums over 2^j neighbours come from doubling; a width that is no power of two is cut into such
 * blocks. Every row of x gives rows z_a = sum_b w[a, b] (sums over columns b), which are added to
 * accumulators, one map per level j; doubling backwards over the rows turns those into y. So a
 * pixel costs one multiplication per weight, and everything that is touched again and again stays in
 * the cache of a core. Offsets that lead from every pixel out of the map must have been left out.
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

#define TILE_X (BYTES > 32 ? 4 : 2)
#define TILE_A 6

/* Groups of offsets on one axis, ascending: group g are blocks first[g] .. first[g + 1] - 1, block i
 * are the 2^level[i] offsets from offset[i]. */
typedef struct {
    long groups, levels;
    const long *first, *level, *offset;
} axis;

static long smallest(const axis *a, long g) { return a->offset[a->first[g]]; }

static long largest(const axis *a, long g) {
    long i = a->first[g + 1] - 1;
    return a->offset[i] + (1L << a->level[i]) - 1;
}

/* Memory of one thread. */
typedef struct {
    long height, width, wide, margin, pitch;
    REAL *line;        /* level j of a row: line + j * pitch + margin, from -margin on */
    REAL *sums;        /* sums of groups of several blocks along a row, or of rows */
    REAL **map;        /* level j: rows 1 - 2^j .. height - 1 */
    const REAL **columns, **rows; /* a row for every group */
    void *block;
} workspace;

static int allocate(workspace *s, long height, long width, const axis *rows, const axis *cols) {
    long reach = 0, groups = rows->groups + cols->groups, i, j;
    for (i = 0; i < cols->groups; ++i) {
        if (-smallest(cols, i) > reach) reach = -smallest(cols, i);
        if (largest(cols, i) > reach) reach = largest(cols, i);
    }
    /* sums of 2^j values begin 2^j - 1 places early */
    if (reach < (1L << cols->levels)) reach = 1L << cols->levels;
    s->height = height, s->width = width, s->wide = round_up(width);
    s->margin = round_up(reach);
    s->pitch = s->wide + 2 * s->margin + LANES;
    long numbers = cols->levels * s->pitch + groups * s->wide;
    for (j = 0; j < rows->levels; ++j) numbers += (height + (1L << j)) * s->wide;
    size_t pointers = (rows->levels + groups) * sizeof(void *);
    pointers = (pointers + BYTES - 1) / BYTES * BYTES;
    size_t bytes = pointers + numbers * sizeof(REAL);
    s->block = aligned_alloc(BYTES, (bytes + BYTES - 1) / BYTES * BYTES);
    if (!s->block) return 0;
    memset(s->block, 0, bytes);
    s->map = s->block;
    s->columns = (const REAL **)(s->map + rows->levels);
    s->rows = s->columns + cols->groups;
    s->line = (REAL *)((char *)s->block + pointers);
    s->sums = s->line + cols->levels * s->pitch;
    REAL *next = s->sums + groups * s->wide;
    for (j = 0; j < rows->levels; ++j) {
        s->map[j] = next + ((1L << j) - 1) * s->wide;
        next += (height + (1L << j)) * s->wide;
    }
    return 1;
}

/* Point s->columns at the sums over every group of columns along a row of x. */
static void sum_columns(workspace *s, const axis *cols, const REAL *x) {
    memcpy(s->line + s->margin, x, s->width * sizeof(REAL));
    for (long j = 1; j < cols->levels; ++j) {
        const REAL *from = s->line + (j - 1) * s->pitch + s->margin;
        REAL *to = s->line + j * s->pitch + s->margin;
        long half = 1L << (j - 1);
        for (long q = 1 - 2 * half; q < s->width; ++q) to[q] = from[q] + from[q + half];
    }
    for (long b = 0; b < cols->groups; ++b) {
        long i = cols->first[b], last = cols->first[b + 1];
        const REAL *from = s->line + cols->level[i] * s->pitch + s->margin + cols->offset[i];
        s->columns[b] = from;
        if (i + 1 == last) continue;
        REAL *to = s->sums + b * s->wide;
        s->columns[b] = to;
        const REAL *more = s->line + cols->level[i + 1] * s->pitch + s->margin + cols->offset[i + 1];
        for (long q = 0; q < s->wide; ++q) to[q] = from[q] + more[q];
        for (i += 2; i < last; ++i) {
            more = s->line + cols->level[i] * s->pitch + s->margin + cols->offset[i];
            for (long q = 0; q < s->wide; ++q) to[q] += more[q];
        }
    }
}

/* The row of map level j that block i of the rows joins with row y of x, or no row (NULL). */
INLINE REAL *row_of_block(const workspace *s, const axis *rows, long i, long y) {
    long size = 1L << rows->level[i], u = y - rows->offset[i] - size + 1;
    if (u <= -size || u >= s->height) return NULL;
    return s->map[rows->level[i]] + u * s->wide;
}

/* z_a of X vectors from place q for the groups a .. a + A - 1, added to the maps. */
INLINE void tile(const int A, const int X, const workspace *s, const axis *rows, const axis *cols,
                 const REAL *w, long y, long a, long q) {
    vec z[TILE_A][TILE_X];
    for (int i = 0; i < A; ++i)
        for (int k = 0; k < X; ++k) z[i][k] = (vec){0};
    const REAL *weights = w + a * cols->groups;
    for (long b = 0; b < cols->groups; ++b) {
        const REAL *from = s->columns[b] + q;
        vec x[TILE_X];
        for (int k = 0; k < X; ++k) x[k] = *(const loose *)(from + k * LANES);
        for (int i = 0; i < A; ++i) {
            REAL weight = weights[i * cols->groups + b];
            for (int k = 0; k < X; ++k) z[i][k] += weight * x[k];
        }
    }
    for (int i = 0; i < A; ++i)
        for (long block = rows->first[a + i]; block < rows->first[a + i + 1]; ++block) {
            REAL *to = row_of_block(s, rows, block, y);
            if (to)
                for (int k = 0; k < X; ++k) *(vec *)(to + q + k * LANES) += z[i][k];
        }
}

#define TILE_OF(A, X) tile(A, X, s, rows, cols, w, y, a, q)
#define TILES_OF(A)                                                       \
    for (q = 0; q + TILE_X * LANES <= s->wide; q += TILE_X * LANES)       \
        TILE_OF(A, TILE_X);                                               \
    switch ((s->wide - q) / LANES) {                                      \
        case 1: TILE_OF(A, 1); break;                                     \
        case 2: TILE_OF(A, 2); break;                                     \
        case 3: TILE_OF(A, TILE_X < 3 ? TILE_X : 3); break;               \
    }                                                                     \
    break;

static void row_of_tiles(long groups, const workspace *s, const axis *rows, const axis *cols,
                         const REAL *w, long y, long a) {
    long q;
    switch (groups) {
        case 1: TILES_OF(1)
        case 2: TILES_OF(2)
        case 3: TILES_OF(3)
        case 4: TILES_OF(4)
        case 5: TILES_OF(5)
        case 6: TILES_OF(6)
    }
}

static void convolve(workspace *s, const axis *rows, const axis *cols, const REAL *x, long stride,
                     const REAL *w, REAL *out) {
    long first, last, u, q;
    for (long j = 0; j < rows->levels; ++j) {
        long early = (1L << j) - 1;
        memset(s->map[j] - early * s->wide, 0, (s->height + early) * s->wide * sizeof(REAL));
    }
    for (long y = 0; y < s->height; ++y) {
        sum_columns(s, cols, x + y * stride);
        /* row y of x belongs to the row y - d of the result */
        for (first = 0; first < rows->groups && y - largest(rows, first) >= s->height;) ++first;
        for (last = rows->groups; last > first && y - smallest(rows, last - 1) < 0;) --last;
        long left = last - first, a = first;
        for (long parts = (left + TILE_A - 1) / TILE_A; parts > 0; --parts) {
            long groups = (left + parts - 1) / parts; /* 13 = 5 + 4 + 4 */
            row_of_tiles(groups, s, rows, cols, w, y, a);
            a += groups, left -= groups;
        }
    }
    for (long j = rows->levels - 1; j > 0; --j) {
        long half = 1L << (j - 1);
        for (u = 1 - 2 * half; u < s->height; ++u) {
            const REAL *from = s->map[j] + u * s->wide;
            for (long row = u; row <= u + half; row += half) {
                if (row <= -half || row >= s->height) continue;
                REAL *to = s->map[j - 1] + row * s->wide;
                for (q = 0; q < s->wide; ++q) to[q] += from[q];
            }
        }
    }
    for (u = 0; u < s->height; ++u)
        memcpy(out + u * s->width, s->map[0] + u * s->wide, s->width * sizeof(REAL));
}

/* Products of A rows and B columns of sums, added to the vectors total[a, b]. */
INLINE void product(const int A, const int B, const workspace *s, vec *total, long a, long b,
                    long groups) {
    vec z[TILE_A][4];
    const REAL *rows[TILE_A], *columns[4];
    for (int i = 0; i < A; ++i) {
        rows[i] = s->rows[a + i];
        for (int k = 0; k < B; ++k) z[i][k] = total[(a + i) * groups + b + k];
    }
    for (int k = 0; k < B; ++k) columns[k] = s->columns[b + k];
    for (long q = 0; q < s->wide; q += LANES) {
        vec x[4];
        for (int k = 0; k < B; ++k) x[k] = *(const loose *)(columns[k] + q);
        for (int i = 0; i < A; ++i) {
            vec g = *(const vec *)(rows[i] + q);
            for (int k = 0; k < B; ++k) z[i][k] += g * x[k];
        }
    }
    for (int i = 0; i < A; ++i)
        for (int k = 0; k < B; ++k) total[(a + i) * groups + b + k] = z[i][k];
}

#define PRODUCTS_OF(A)                                                              \
    for (b = 0; b + 4 <= groups; b += 4) product(A, 4, s, total, a, b, groups);    \
    switch (groups - b) {                                                              \
        case 1: product(A, 1, s, total, a, b, groups); break;                       \
        case 2: product(A, 2, s, total, a, b, groups); break;                       \
        case 3: product(A, 3, s, total, a, b, groups); break;                       \
    }                                                                               \
    break;

static void row_of_products(long many, const workspace *s, vec *total, long a, long groups) {
    long b;
    switch (many) {
        case 1: PRODUCTS_OF(1)
        case 2: PRODUCTS_OF(2)
        case 3: PRODUCTS_OF(3)
        case 4: PRODUCTS_OF(4)
        case 5: PRODUCTS_OF(5)
        case 6: PRODUCTS_OF(6)
    }
}

/* Add the gradient of the weights from one image to total[a, b], sums over lanes still to come. */
static void correlate(workspace *s, const axis *rows, const axis *cols, const REAL *x,
                      const REAL *grad, long stride, vec *total) {
    long first, last, u, q;
    REAL *sums = s->sums + cols->groups * s->wide;
    for (u = 0; u < s->height; ++u)
        memcpy(s->map[0] + u * s->wide, grad + u * s->width, s->width * sizeof(REAL));
    for (long j = 1; j < rows->levels; ++j) {
        long half = 1L << (j - 1);
        for (u = 1 - 2 * half; u < s->height; ++u) {
            REAL *to = s->map[j] + u * s->wide;
            const REAL *from = s->map[j - 1] + u * s->wide, *other = from + half * s->wide;
            if (u <= -half)
                memcpy(to, other, s->wide * sizeof(REAL));
            else if (u + half >= s->height)
                memcpy(to, from, s->wide * sizeof(REAL));
            else
                for (q = 0; q < s->wide; ++q) to[q] = from[q] + other[q];
        }
    }
    for (long y = 0; y < s->height; ++y) {
        sum_columns(s, cols, x + y * stride);
        for (first = 0; first < rows->groups && y - largest(rows, first) >= s->height;) ++first;
        for (last = rows->groups; last > first && y - smallest(rows, last - 1) < 0;) --last;
        for (long a = first; a < last; ++a) {
            long found = 0;
            for (long i = rows->first[a]; i < rows->first[a + 1]; ++i) {
                const REAL *from = row_of_block(s, rows, i, y);
                if (!from) continue;
                if (!found++) {
                    s->rows[a] = from;
                    continue;
                }
                REAL *to = sums + a * s->wide;
                const REAL *before = s->rows[a];
                for (q = 0; q < s->wide; ++q) to[q] = before[q] + from[q];
                s->rows[a] = to;
            }
        }
        long left = last - first, a = first;
        for (long parts = (left + TILE_A - 1) / TILE_A; parts > 0; --parts) {
            long many = (left + parts - 1) / parts;
            row_of_products(many, s, total, a, cols->groups);
            a += many, left -= many;
        }
    }
}

/* out (images, channels, height, width) of x with strides (image, channel, row) and w (channels,
 * groups of rows, groups of columns). Returns 0 where memory is missing. */
int forward(const REAL *x, const REAL *w, REAL *out, long images, long channels, long height,
            long width, const long *strides, const axis *rows, const axis *cols, int threads) {
    int good = 1;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        int mine = allocate(&s, height, width, rows, cols);
        if (!mine) good = 0;
#pragma omp for schedule(dynamic, 1)
        for (long plane = 0; plane < images * channels; ++plane) {
            long n = plane / channels, c = plane % channels;
            if (mine)
                convolve(&s, rows, cols, x + n * strides[0] + c * strides[1], strides[2],
                         w + c * rows->groups * cols->groups, out + plane * height * width);
        }
        if (mine) free(s.block);
    }
    return good;
}

/* Gradient of w for grad, the gradient of out (contiguous). */
int weight_gradient(const REAL *x, const REAL *grad, REAL *out, long images, long channels,
                    long height, long width, const long *strides, const axis *rows,
                    const axis *cols, int threads) {
    int good = 1;
    long taps = rows->groups * cols->groups;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        vec *total = aligned_alloc(BYTES, taps * BYTES);
        int memory = allocate(&s, height, width, rows, cols), mine = total && memory;
        if (!mine) good = 0;
#pragma omp for schedule(dynamic, 1)
        for (long c = 0; c < channels; ++c) {
            if (!mine) continue;
            memset(total, 0, taps * BYTES);
            for (long n = 0; n < images; ++n)
                correlate(&s, rows, cols, x + n * strides[0] + c * strides[1],
                          grad + (n * channels + c) * height * width, strides[2], total);
            for (long tap = 0; tap < taps; ++tap) out[c * taps + tap] = lane_sum(total[tap]);
        }
        if (memory) free(s.block);
        free(total);
    }
    return good;
}
