/* Depthwise convolution with taps at equal distances, and its weight gradient.
 *
 *   y[p, q] = sum_ab w[a, b] x[p + first_row + d a, q + first_column + e b]     (zero outside)
 *
 * A plane is copied into the cache with zeros beside its rows. Rows of y that are d apart share most
 * of the rows of x that they see, whose vectors are loaded once for all. The weight gradient keeps
 * a block of sums in registers from the first row to the last.
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

#define TILE_X 4 /* vectors along a row */
#define TILE_R 4 /* rows that are done at once */
#define TILE_A 5 /* rows and columns of taps whose gradients are summed up at once */
#define TILE_B 4

typedef struct {
    long number, first, step; /* offset i is first + step i */
} taps;

typedef struct {
    long images, channels, height, width;
    long image, channel, row; /* strides of x */
    taps rows, columns;
} problem;

/* Memory of one thread. */
typedef struct {
    long wide, pitch, left; /* of a row rounded up, from row to row, zeros before a row */
    long above;             /* rows of zeros above and below the gradient */
    REAL *x, *zero, *grad;
    const REAL **seen; /* rows of x that the rows of a tile see */
    vec *total;
    void *block;
} workspace;

static long larger_of(long a, long b) { return a > b ? a : b; }
static long last(const taps *t) { return t->first + t->step * (t->number - 1); }

static int allocate(workspace *s, const problem *p, int backward) {
    s->wide = round_up(p->width), s->left = round_up(larger_of(0, -p->columns.first));
    s->pitch = s->left + s->wide + round_up(larger_of(0, last(&p->columns)));
    s->above = larger_of(larger_of(0, -p->rows.first), last(&p->rows));
    long number = backward ? p->rows.number * p->columns.number : 0;
    long grad = backward ? (p->height + 2 * s->above) * s->wide : 0;
    size_t bytes = ((p->height + 1) * s->pitch + grad) * sizeof(REAL) + number * sizeof(vec) +
                   (p->rows.number + TILE_R) * sizeof(REAL *);
    bytes = (bytes + BYTES - 1) / BYTES * BYTES;
    s->block = aligned_alloc(BYTES, bytes);
    if (!s->block) return 0;
    memset(s->block, 0, bytes);
    s->x = s->block, s->zero = s->x + p->height * s->pitch, s->grad = s->zero + s->pitch;
    s->total = (vec *)(s->grad + grad), s->seen = (const REAL **)(s->total + number);
    return 1;
}

static void copy_plane(const problem *p, const workspace *s, const REAL *x) {
    for (long y = 0; y < p->height; ++y)
        memcpy(s->x + y * s->pitch + s->left, x + y * p->row, p->width * sizeof(REAL));
}

/* Row y of x as the first column of taps sees it. */
static const REAL *row_of(const problem *p, const workspace *s, long y) {
    const REAL *row = y < 0 || y >= p->height ? s->zero : s->x + y * s->pitch;
    return row + s->left + p->columns.first;
}

/* What row i of those that R rows of y see adds to the rows low .. high of these. */
INLINE void row(const int X, const int low, const int high, const problem *p, const REAL *from,
                const REAL *w, vec z[][TILE_X]) {
    const long columns = p->columns.number, step = p->columns.step;
    for (long b = 0; b < columns; ++b)
        for (int k = 0; k < X; ++k) {
            vec x = *(const loose *)(from + b * step + k * LANES);
            for (int j = low; j <= high; ++j) z[j][k] += w[b - j * columns] * x;
        }
}

#define ROW(LOW, HIGH)                                                  \
    case (LOW) * TILE_R + (HIGH):                                       \
        if ((HIGH) < R) row(X, LOW, HIGH, p, from, w + i * columns, z); \
        break;

/* X vectors of R rows of y that are a step apart, at most TILE_R. */
INLINE void tile(const int X, const int R, const problem *p, const workspace *s, const REAL *w,
                 long q, REAL *out) {
    const long columns = p->columns.number, rows = p->rows.number, many = p->width - q;
    vec z[TILE_R][TILE_X];
    for (int j = 0; j < R; ++j)
        for (int k = 0; k < X; ++k) z[j][k] = (vec){0};
    for (long i = 0; i < rows + R - 1; ++i) {
        const REAL *from = s->seen[i] + q;
        switch (larger_of(0, i - rows + 1) * TILE_R + smaller(R - 1, i)) {
            ROW(0, 0) ROW(0, 1) ROW(0, 2) ROW(0, 3) ROW(1, 1)
            ROW(1, 2) ROW(1, 3) ROW(2, 2) ROW(2, 3) ROW(3, 3)
        }
    }
    for (int j = 0; j < R; ++j)
        for (int k = 0; k < X; ++k)
            memcpy(out + j * p->rows.step * p->width + q + k * LANES, &z[j][k],
                   smaller(LANES, many - k * LANES) * sizeof(REAL));
}

#define TILE(X, R) case (X) * 8 + (R): tile(X, R, p, s, w, q, out + y * p->width); break;

static void convolve(const problem *p, const workspace *s, const REAL *w, REAL *out) {
    const long step = p->rows.step;
    for (long q = 0; q < p->width; q += TILE_X * LANES) {
        long vectors = smaller(TILE_X, (s->wide - q) / LANES), most = vectors > 2 ? 2 : TILE_R;
        for (long first = 0; first < p->height; first += most * step)
            for (long y = first; y < smaller(first + step, p->height); ++y) {
                long rows = smaller(most, (p->height - y + step - 1) / step);
                for (long i = 0; i < p->rows.number + rows - 1; ++i)
                    s->seen[i] = row_of(p, s, y + p->rows.first + step * i);
                switch (vectors * 8 + rows) {
                    TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4) TILE(2, 1) TILE(2, 2)
                    TILE(2, 3) TILE(2, 4) TILE(3, 1) TILE(3, 2) TILE(4, 1) TILE(4, 2)
                }
            }
    }
}

/* Add the gradient of A x B taps to their sums. */
INLINE void product(const int A, const int B, const problem *p, const workspace *s, long a, long b,
                    vec *total) {
    const long columns = p->columns.number;
    vec z[TILE_A][TILE_B];
    for (int i = 0; i < A; ++i)
        for (int k = 0; k < B; ++k) z[i][k] = total[i * columns + k];
    long offset = s->left + p->columns.first + b * p->columns.step;
    for (long y = 0; y < p->height; ++y) {
        const REAL *from = s->x + y * s->pitch + offset;
        const REAL *grad = s->grad + (y - p->rows.first - a * p->rows.step + s->above) * s->wide;
        for (long q = 0; q < s->wide; q += LANES) {
            vec x[TILE_B];
            for (int k = 0; k < B; ++k) x[k] = *(const loose *)(from + q + k * p->columns.step);
            for (int i = 0; i < A; ++i) {
                vec g = *(const vec *)(grad + q - i * p->rows.step * s->wide);
                for (int k = 0; k < B; ++k) z[i][k] += g * x[k];
            }
        }
    }
    for (int i = 0; i < A; ++i)
        for (int k = 0; k < B; ++k) total[i * columns + k] = z[i][k];
}

#define BLOCK(A, B) case (A) * 8 + (B): product(A, B, p, s, a, b, total); break;
#define BLOCKS(A) BLOCK(A, 1) BLOCK(A, 2) BLOCK(A, 3) BLOCK(A, 4)

static void correlate(const problem *p, const workspace *s, const REAL *grad) {
    for (long y = 0; y < p->height; ++y)
        memcpy(s->grad + (y + s->above) * s->wide, grad + y * p->width, p->width * sizeof(REAL));
    long a = 0, left = p->rows.number;
    for (long parts = (left + TILE_A - 1) / TILE_A; parts > 0; --parts) {
        long rows = (left + parts - 1) / parts, b = 0, more = p->columns.number; /* 7 = 4 + 3 */
        for (long pieces = (more + TILE_B - 1) / TILE_B; pieces > 0; --pieces) {
            long columns = (more + pieces - 1) / pieces;
            vec *total = s->total + a * p->columns.number + b;
            switch (rows * 8 + columns) {
                BLOCKS(1) BLOCKS(2) BLOCKS(3) BLOCKS(4) BLOCKS(5)
            }
            b += columns, more -= columns;
        }
        a += rows, left -= rows;
    }
}

/* out (images, channels, height, width) with w (channels, rows, columns of taps). Both return 0
 * where memory is missing. */
int forward(const problem *p, const REAL *x, const REAL *w, REAL *out, int threads) {
    int good = 1;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        int mine = allocate(&s, p, 0);
        if (!mine) good = 0;
#pragma omp for schedule(dynamic, 1)
        for (long plane = 0; plane < p->images * p->channels; ++plane) {
            if (!mine) continue;
            long n = plane / p->channels, c = plane % p->channels;
            copy_plane(p, &s, x + n * p->image + c * p->channel);
            convolve(p, &s, w + c * p->rows.number * p->columns.number,
                     out + plane * p->height * p->width);
        }
        if (mine) free(s.block);
    }
    return good;
}

/* Gradient of w for grad, the gradient of out (contiguous). */
int weight_gradient(const problem *p, const REAL *x, const REAL *grad, REAL *out, int threads) {
    int good = 1;
    long number = p->rows.number * p->columns.number;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        int mine = allocate(&s, p, 1);
        if (!mine) good = 0;
#pragma omp for schedule(dynamic, 1)
        for (long c = 0; c < p->channels; ++c) {
            if (!mine) continue;
            memset(s.total, 0, number * sizeof(vec));
            for (long n = 0; n < p->images; ++n) {
                copy_plane(p, &s, x + n * p->image + c * p->channel);
                correlate(p, &s, grad + (n * p->channels + c) * p->height * p->width);
            }
            for (long i = 0; i < number; ++i) out[c * number + i] = lane_sum(s.total[i]);
        }
        if (mine) free(s.block);
    }
    return good;
}
