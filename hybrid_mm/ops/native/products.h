/* Products of vectors of queries, one query in each lane, with rows of numbers: keys, weights. */
#include "vectors.h"

#define UNUSED __attribute__((unused)) /* not every kernel needs all of these */
#define MOST 12 /* sums at once: with operands, what fits into 16 registers */

#define CASES(F, COUNT, ...)                      \
    switch (COUNT) {                              \
        case 1: F(1, __VA_ARGS__); break;         \
        case 2: F(2, __VA_ARGS__); break;         \
        case 3: F(3, __VA_ARGS__); break;         \
        case 4: F(4, __VA_ARGS__); break;         \
        case 5: F(5, __VA_ARGS__); break;         \
        case 6: F(6, __VA_ARGS__); break;         \
        case 7: F(7, __VA_ARGS__); break;         \
        case 8: F(8, __VA_ARGS__); break;         \
        case 9: F(9, __VA_ARGS__); break;         \
        case 10: F(10, __VA_ARGS__); break;       \
        case 11: F(11, __VA_ARGS__); break;       \
        case 12: F(12, __VA_ARGS__); break;       \
    }

/* Products of a vector of queries with `count` keys side by side. */
INLINE void products(const int count, const vec *q, long dim, const REAL *k, long wide, vec *to) {
    vec sum[MOST];
    for (int j = 0; j < count; ++j) sum[j] = (vec){0};
    for (long c = 0; c < dim; ++c) {
        vec query = q[c];
        for (int j = 0; j < count; ++j) sum[j] += query * k[j * wide + c];
    }
    for (int j = 0; j < count; ++j) to[j] = sum[j];
}

/* The same with all keys of a rectangle, whose rows are `pitch` numbers apart. */
UNUSED static void all_products(const vec *q, long dim, const REAL *k, long wide, long pitch, long rows,
                         long columns, vec *to) {
    long parts = (columns + MOST - 1) / MOST;
    for (long y = 0; y < rows; ++y, k += pitch) {
        const REAL *key = k;
        for (long part = 0, done = 0; part < parts; ++part) {
            long count = (columns - done + parts - part - 1) / (parts - part);
            CASES(products, count, q, dim, key, wide, to);
            done += count, to += count, key += count * wide;
        }
    }
}

/* LANES channels of the weighted sums of keys or values, for a vector of queries. */
UNUSED static void sums(const vec *p, const REAL *v, long wide, long pitch, long rows, long columns,
                 vec *to) {
    vec sum[LANES];
    for (int c = 0; c < LANES; ++c) sum[c] = (vec){0};
    for (long y = 0; y < rows; ++y, v += pitch)
        for (long x = 0; x < columns; ++x) {
            vec weight = *p++;
            const REAL *value = v + x * wide;
            for (int c = 0; c < LANES; ++c) sum[c] += weight * value[c];
        }
    for (int c = 0; c < LANES; ++c) to[c] = sum[c];
}

UNUSED static void all_sums(const vec *p, const REAL *v, long wide, long pitch, long rows, long columns,
                     vec *to) {
    for (long c = 0; c < wide; c += LANES) sums(p, v + c, wide, pitch, rows, columns, to + c);
}

/* Add to `count` keys side by side, LANES channels: sums over queries. */
INLINE void outer(const int count, const vec *s, const REAL *q, long wide, REAL *to) {
    vec sum[MOST];
    const REAL *weight = (const REAL *)s;
    for (int j = 0; j < count; ++j) sum[j] = *(const vec *)(to + j * wide);
    for (long lane = 0; lane < LANES; ++lane) {
        vec query = *(const vec *)(q + lane * wide);
        for (int j = 0; j < count; ++j) sum[j] += query * weight[j * LANES + lane];
    }
    for (int j = 0; j < count; ++j) *(vec *)(to + j * wide) = sum[j];
}

UNUSED static void all_outer(const vec *s, const REAL *q, long wide, long pitch, long rows, long columns,
                      REAL *to) {
    long parts = (columns + MOST - 1) / MOST;
    for (long y = 0; y < rows; ++y, to += pitch) {
        REAL *key = to;
        for (long part = 0, done = 0; part < parts; ++part) {
            long count = (columns - done + parts - part - 1) / (parts - part);
            for (long c = 0; c < wide; c += LANES)
                CASES(outer, count, s, q + c, wide, key + c);
            done += count, s += count, key += count * wide;
        }
    }
}
