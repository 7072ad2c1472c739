/* Weighted sums over the taps of windows, with weights of their own at every pixel, and gradients.
 *
 *   y[c, p, q] = sum_ab w[c mod G, a k + b, p, q] v[c, p + d a, q + d b]
 *
 * v is padded, (C, high, wide): at least height + d (k - 1) rows and width + d (k - 1) columns. A row
 * group while it is in registers; the work is memory for w otherwise, the largest of the tensors.
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */

#include "vectors.h"

#define TILE_C 8

typedef REAL one __attribute__((may_alias));

typedef struct {
    long images, channels, groups, height, width, kernel, dilation, high, wide;
} sizes;

typedef struct {
    long plane, padded, taps;
} derived;

static derived derive(const sizes *s) {
    derived d = {s->height * s->width, s->high * s->wide, s->kernel * s->kernel};
    return d;
}

/* C channels, a distance of `groups` planes apart, at the places q of row p: one vector or number. */
#define SUMS(NAME, TYPE)                                                                          \
    INLINE void NAME(const int C, const sizes *s, const derived *d, const REAL *v, const REAL *w, \
                     REAL *out, long p, long q) {                                                 \
        TYPE z[TILE_C];                                                                           \
        for (int i = 0; i < C; ++i) z[i] = (TYPE){0};                                             \
        w += p * s->width + q, v += p * s->wide + q;                                              \
        for (long a = 0; a < s->kernel; ++a)                                                      \
            for (long b = 0; b < s->kernel; ++b) {                                                \
                TYPE weight = *(const TYPE *)(w + (a * s->kernel + b) * d->plane);                \
                const REAL *from = v + s->dilation * (a * s->wide + b);                           \
                for (int i = 0; i < C; ++i)                                                       \
                    z[i] += weight * *(const TYPE *)(from + i * s->groups * d->padded);           \
            }                                                                                     \
        for (int i = 0; i < C; ++i)                                                               \
            *(TYPE *)(out + i * s->groups * d->plane + p * s->width + q) = z[i];                  \
    }

/* The gradient of the weights at these places, set, or added to that of channels before. */
#define PRODUCTS(NAME, TYPE)                                                                      \
    INLINE void NAME(const int C, const sizes *s, const derived *d, const REAL *v,                \
                     const REAL *grad, REAL *out, long p, long q, int add) {                      \
        TYPE g[TILE_C];                                                                           \
        for (int i = 0; i < C; ++i)                                                               \
            g[i] = *(const TYPE *)(grad + i * s->groups * d->plane + p * s->width + q);           \
        out += p * s->width + q, v += p * s->wide + q;                                            \
        for (long a = 0; a < s->kernel; ++a)                                                      \
            for (long b = 0; b < s->kernel; ++b) {                                                \
                const REAL *from = v + s->dilation * (a * s->wide + b);                           \
                TYPE *to = (TYPE *)(out + (a * s->kernel + b) * d->plane), z = {0};               \
                for (int i = 0; i < C; ++i)                                                       \
                    z += g[i] * *(const TYPE *)(from + i * s->groups * d->padded);                \
                if (add) z += *to;                                                                \
                *to = z;                                                                          \
            }                                                                                     \
    }

SUMS(sum_vector, loose)
SUMS(sum_number, one)
PRODUCTS(product_vector, loose)
PRODUCTS(product_number, one)

#define ROW(VECTOR, NUMBER, ...)                                      \
    for (q = 0; q + LANES <= s->width; q += LANES) VECTOR(__VA_ARGS__); \
    for (; q < s->width; ++q) NUMBER(__VA_ARGS__);                    \
    break;

#define ROWS_OF(C) ROW(sum_vector, sum_number, C, s, d, v, w, out, p, q)

static void sum_row(long many, const sizes *s, const derived *d, const REAL *v, const REAL *w,
                    REAL *out, long p) {
    long q;
    switch (many) {
        case 1: ROWS_OF(1)
        case 2: ROWS_OF(2)
        case 3: ROWS_OF(3)
        case 4: ROWS_OF(4)
        case 5: ROWS_OF(5)
        case 6: ROWS_OF(6)
        case 7: ROWS_OF(7)
        case 8: ROWS_OF(8)
    }
}

#define PRODUCTS_OF(C) ROW(product_vector, product_number, C, s, d, v, grad, out, p, q, add)

static void product_row(long many, const sizes *s, const derived *d, const REAL *v,
                        const REAL *grad, REAL *out, long p, int add) {
    long q;
    switch (many) {
        case 1: PRODUCTS_OF(1)
        case 2: PRODUCTS_OF(2)
        case 3: PRODUCTS_OF(3)
        case 4: PRODUCTS_OF(4)
        case 5: PRODUCTS_OF(5)
        case 6: PRODUCTS_OF(6)
        case 7: PRODUCTS_OF(7)
        case 8: PRODUCTS_OF(8)
    }
}

/* out (images, channels, height, width) of v and w (images, groups, taps, height, width). */
void forward(const REAL *v, const REAL *w, REAL *out, const sizes *s, int threads) {
    const derived made = derive(s), *d = &made;
    long each = s->channels / s->groups;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long set = 0; set < s->images * s->groups; ++set)
        for (long p = 0; p < s->height; ++p) {
            long first = set / s->groups * s->channels + set % s->groups;
            for (long i = 0; i < each; i += TILE_C) {
                long many = each - i < TILE_C ? each - i : TILE_C, c = first + i * s->groups;
                sum_row(many, s, d, v + c * d->padded, w + set * d->taps * d->plane,
                        out + c * d->plane, p);
            }
        }
}

/* Gradient of w from that of out. */
void weight_gradient(const REAL *v, const REAL *grad, REAL *out, const sizes *s, int threads) {
    const derived made = derive(s), *d = &made;
    long each = s->channels / s->groups;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long set = 0; set < s->images * s->groups; ++set)
        for (long p = 0; p < s->height; ++p) {
            long first = set / s->groups * s->channels + set % s->groups;
            for (long i = 0; i < each; i += TILE_C) {
                long many = each - i < TILE_C ? each - i : TILE_C, c = first + i * s->groups;
                product_row(many, s, d, v + c * d->padded, grad + c * d->plane,
                            out + set * d->taps * d->plane, p, i > 0);
            }
        }
}

/* Gradient of v, which holds zeros before, from w and the gradient of out. */
void value_gradient(const REAL *w, const REAL *grad, REAL *out, const sizes *s, int threads) {
    const derived made = derive(s), *d = &made;
#pragma omp parallel for num_threads(threads)
    for (long plane = 0; plane < s->images * s->channels; ++plane) {
        long set = plane / s->channels * s->groups + plane % s->channels % s->groups;
        const REAL *weights = w + set * d->taps * d->plane, *of_row = grad + plane * d->plane;
        REAL *target = out + plane * d->padded;
        for (long p = 0; p < s->height; ++p, of_row += s->width)
            for (long a = 0; a < s->kernel; ++a)
                for (long b = 0; b < s->kernel; ++b) {
                    const REAL *weight = weights + (a * s->kernel + b) * d->plane + p * s->width;
                    REAL *to = target + (p + s->dilation * a) * s->wide + s->dilation * b;
#pragma omp simd
                    for (long q = 0; q < s->width; ++q) to[q] += weight[q] * of_row[q];
                }
    }
}
