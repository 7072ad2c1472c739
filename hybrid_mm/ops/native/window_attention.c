/* Attention of every pixel to the k x k window around it, which is moved inwards at the border.
 *
 *   out[p] = sum_j softmax_j(scale q[p] . k[j] + bias[j - p]) v[j],   j in the window of p
 *
 * Lanes are neighbouring queries of a row: keys and values at one offset are then one vector of a
 * map that is laid out channel by channel. Where a vector has queries near the border, whose
 * windows are moved, offsets of up to twice the radius are computed for it and hidden from queries
 * that do not see them. So no products are computed that nobody sees, but for these.
 *
 * Dilated windows see every d-th row and column: maps of their own, one after the other.
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES ((long)(BYTES / sizeof(REAL)))
#define TILE 8   /* offsets, or channels, that are summed up at once */
#define HIDDEN ((REAL)-1e30)
#define INLINE static inline __attribute__((always_inline))

#ifdef DOUBLE
typedef int64_t number;
#else
typedef int32_t number; /* as long as REAL */
#endif
typedef number bits __attribute__((vector_size(BYTES)));
typedef REAL vec __attribute__((vector_size(BYTES)));
/* the same anywhere in memory */
typedef REAL loose __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef number loose_bits __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));

typedef struct {
    long images, heads, height, width, dim, value_dim, rows, columns, row_step, column_step;
} sizes;

/* Memory of one thread, for maps of up to height x width. */
typedef struct {
    long pad, pitch, offsets;
    REAL *q, *k, *v;  /* rows of channels of `pitch` numbers, the first pixel at `pad` */
    number *seen;     /* offsets x pitch: -1 where a query sees that key, else 0 */
    vec *logits, *out;
    void *block;
} workspace;

static long round_up(long n) { return (n + LANES - 1) / LANES * LANES; }

static int allocate(workspace *s, const sizes *z, long height, long width) {
    s->offsets = 4 * (z->columns / 2) + 1;
    s->pad = round_up(2 * (z->columns / 2));
    s->pitch = round_up(width) + 2 * s->pad;
    long most = z->dim > z->value_dim ? z->dim : z->value_dim;
    long numbers = s->pitch * (z->dim + (z->dim + z->value_dim) * height + s->offsets);
    size_t vectors = (z->rows * s->offsets + most) * sizeof(vec);
    size_t bytes = vectors + numbers * sizeof(REAL);
    s->block = aligned_alloc(BYTES, (bytes + BYTES - 1) / BYTES * BYTES);
    if (!s->block) return 0;
    memset(s->block, 0, bytes);
    s->logits = s->block;
    s->out = s->logits + z->rows * s->offsets;
    s->q = (REAL *)(s->out + most);
    s->k = s->q + s->pitch * z->dim;
    s->v = s->k + s->pitch * z->dim * height;
    s->seen = (number *)(s->v + s->pitch * z->value_dim * height);
    return 1;
}

/* A row of pixels (width, dim), `step` pixels apart, as channels (dim, pitch) from s->pad on. */
static void lay_out(const workspace *s, const REAL *from, long width, long dim, long step,
                    REAL factor, REAL *to) {
    to += s->pad;
    for (long x = 0; x < width; ++x)
        for (long c = 0; c < dim; ++c) to[c * s->pitch + x] = factor * from[x * step * dim + c];
    if (s->pad) /* the map before may have been a pixel wider */
        for (long c = 0; c < dim; ++c) to[c * s->pitch + width] = 0;
}

static long smaller(long a, long b) { return a < b ? a : b; }

/* First of the `size` pixels that pixel i of `length` sees. */
static long start(long i, long size, long length) {
    long first = i - size / 2;
    if (first < 0) first = 0;
    return smaller(first, length - size);
}

INLINE vec larger(vec a, vec b) {
    bits first = a > b;
    return (vec)(((bits)a & first) | ((bits)b & ~first));
}

INLINE vec exponential(vec x) {
#ifdef DOUBLE
    vec result;
    for (long i = 0; i < LANES; ++i) result[i] = exp(x[i]);
    return result;
#else
    /* 2^n e^r with |r| <= log(2) / 2; zero below e^-87 */
    const REAL magic = 12582912;
    vec t = x * (REAL)1.44269504089 + magic, n = t - magic;
    vec r = x - n * (REAL)0.693359375 + n * (REAL)2.12194440e-4;
    vec p = (vec){0} + (REAL)1.3888889e-3;
    p = p * r + (REAL)8.3333333e-3;
    p = p * r + (REAL)4.1666667e-2;
    p = p * r + (REAL)1.6666667e-1;
    p = p * r + (REAL)0.5;
    p = p * r + (REAL)1;
    p = p * r + (REAL)1;
    bits power = ((bits)t - 0x4B400000 + 127) << 23, tiny = x < (REAL)-87;
    return (vec)((bits)(p * (vec)power) & ~tiny);
#endif
}

/* Logits of `count` (at most TILE) offsets from `first` on, of one row of keys. */
INLINE void products(const int count, const workspace *s, long dim, const REAL *q, const REAL *k,
                     vec *to) {
    vec sum[TILE];
    for (int j = 0; j < count; ++j) sum[j] = (vec){0};
    for (long c = 0; c < dim; ++c) {
        vec query = *(const loose *)(q + c * s->pitch);
        const REAL *key = k + c * s->pitch;
        for (int j = 0; j < count; ++j) sum[j] += query * *(const loose *)(key + j);
    }
    for (int j = 0; j < count; ++j) to[j] = sum[j];
}

static void row_of_logits(const workspace *s, long dim, const REAL *q, const REAL *k, vec *to,
                          long count) {
    for (; count >= TILE; count -= TILE, k += TILE, to += TILE)
        products(TILE, s, dim, q, k, to);
    switch (count) {
        case 1: products(1, s, dim, q, k, to); break;
        case 2: products(2, s, dim, q, k, to); break;
        case 3: products(3, s, dim, q, k, to); break;
        case 4: products(4, s, dim, q, k, to); break;
        case 5: products(5, s, dim, q, k, to); break;
        case 6: products(6, s, dim, q, k, to); break;
        case 7: products(7, s, dim, q, k, to); break;
    }
}

/* Sums of `count` channels of values, weighted, over all rows and offsets. */
INLINE void sums(const int count, const workspace *s, const sizes *z, long rows, long offsets,
                 const REAL *v, vec *to) {
    vec sum[TILE];
    const vec *p = s->logits;
    for (int c = 0; c < count; ++c) sum[c] = (vec){0};
    for (long a = 0; a < rows; ++a, v += z->value_dim * s->pitch)
        for (long b = 0; b < offsets; ++b, ++p)
            for (int c = 0; c < count; ++c) sum[c] += *p * *(const loose *)(v + c * s->pitch + b);
    for (int c = 0; c < count; ++c) to[c] = sum[c];
}

static void all_sums(const workspace *s, const sizes *z, long rows, long offsets, const REAL *v) {
    long c = 0;
    for (; c + TILE <= z->value_dim; c += TILE)
        sums(TILE, s, z, rows, offsets, v + c * s->pitch, s->out + c);
    for (; c < z->value_dim; ++c) sums(1, s, z, rows, offsets, v + c * s->pitch, s->out + c);
}

/* One map of height x width pixels, a distance of row_step and column_step apart. */
static void attend(workspace *s, const sizes *z, const REAL *q, const REAL *k, const REAL *v,
                   const REAL *bias, REAL scale, REAL *out, long height, long width) {
    long rows = smaller(z->rows, height), columns = smaller(z->columns, width);
    long radius = z->columns / 2, table = 2 * z->columns - 1;
    long down = z->width * z->row_step;
    const bits hidden = (bits)((vec){0} + HIDDEN);
    for (long o = 0; o < s->offsets; ++o)
        for (long x = 0; x < width; ++x) {
            long seen = x + o - 2 * radius - start(x, columns, width);
            s->seen[o * s->pitch + x] = -(seen >= 0 && seen < columns);
        }
    for (long y = 0; y < height; ++y) {
        lay_out(s, k + y * down * z->dim, width, z->dim, z->column_step, 1,
                s->k + y * z->dim * s->pitch);
        lay_out(s, v + y * down * z->value_dim, width, z->value_dim, z->column_step, 1,
                s->v + y * z->value_dim * s->pitch);
    }
    for (long y = 0; y < height; ++y) {
        lay_out(s, q + y * down * z->dim, width, z->dim, z->column_step, scale, s->q);
        long top = start(y, rows, height);
        for (long x = 0; x < width; x += LANES) {
            /* offsets that any of these queries sees: they fall along a row */
            long last = smaller(x + LANES, width) - 1;
            long low = start(last, columns, width) - last;
            long high = start(x, columns, width) - x + columns;
            long offsets = high - low, place = s->pad + x + low;
            vec largest = (vec){0} + HIDDEN;
            for (long a = 0; a < rows; ++a) {
                vec *to = s->logits + a * offsets;
                row_of_logits(s, z->dim, s->q + s->pad + x,
                              s->k + (top + a) * z->dim * s->pitch + place, to, offsets);
                const number *seen = s->seen + (low + 2 * radius) * s->pitch + x;
                const REAL *entry = NULL;
                if (bias) entry = bias + (top + a - y + z->rows - 1) * table + low + z->columns - 1;
                for (long b = 0; b < offsets; ++b) {
                    if (bias) to[b] += entry[b];
                    bits mask = *(const loose_bits *)(seen + b * s->pitch);
                    to[b] = (vec)(((bits)to[b] & mask) | (hidden & ~mask));
                    largest = larger(largest, to[b]);
                }
            }
            vec total = {0};
            for (long i = 0; i < rows * offsets; ++i) {
                s->logits[i] = exponential(s->logits[i] - largest);
                total += s->logits[i];
            }
            all_sums(s, z, rows, offsets, s->v + top * z->value_dim * s->pitch + place);
            for (long c = 0; c < z->value_dim; ++c) s->out[c] /= total;
            REAL *to = out + (y * down + x * z->column_step) * z->value_dim;
            for (long i = 0; i <= last - x; ++i)
                for (long c = 0; c < z->value_dim; ++c)
                    to[i * z->column_step * z->value_dim + c] = s->out[c][i];
        }
    }
}

/* out (images, heads, height, width, value_dim) of contiguous q, k and v; bias (heads, 2 rows - 1,
 * 2 columns - 1) or NULL. Returns 0 where memory is missing. */
int forward(const REAL *q, const REAL *k, const REAL *v, const REAL *bias, double scale, REAL *out,
            const sizes *z, int threads) {
    int good = 1;
    long high = (z->height + z->row_step - 1) / z->row_step;
    long wide = (z->width + z->column_step - 1) / z->column_step;
    long parts = z->row_step * z->column_step;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        int mine = allocate(&s, z, high, wide);
        if (!mine) good = 0;
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < z->images * z->heads * parts; ++i) {
            if (!mine) continue;
            long plane = i / parts, row = i % parts / z->column_step, column = i % z->column_step;
            if (row >= z->height || column >= z->width) continue;
            long pixel = (plane * z->height + row) * z->width + column;
            const REAL *own = bias;
            if (bias)
                own += plane % z->heads * (2 * z->rows - 1) * (2 * z->columns - 1);
            attend(&s, z, q + pixel * z->dim, k + pixel * z->dim, v + pixel * z->value_dim, own,
                   (REAL)scale, out + pixel * z->value_dim,
                   (z->height - row + z->row_step - 1) / z->row_step,
                   (z->width - column + z->column_step - 1) / z->column_step);
        }
        if (mine) free(s.block);
    }
    return good;
}
