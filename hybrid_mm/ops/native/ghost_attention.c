/* Local attention whose weights come from one map (ELSA), and its gradients.
 *
 *   A = softmax_t(W a[p] + b),   y[c, p] = sum_t A[head(c), t, p] v[c, p + t],   t of k x k taps
 *
 * Lanes are pixels side by side in a row. All weights of a pixel are a product of its activations
 * with the rows of W; they live as long as a vector of pixels does, and are computed again for the
 * gradients. Values are padded planes, so that those of a tap are one vector anywhere in memory.
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */
#include <stdlib.h>
#include <string.h>

#include "products.h"

/* A map (images, channels, rows, columns) anywhere in memory. */
typedef struct {
    REAL *data;
    long image, channel, row, column;
} map;

typedef struct {
    long images, channels, hidden, heads, kernel, dilation, height, width;
    long high, wide; /* of padded values: all that a last vector of pixels reads */
    long band;       /* rows that a thread does at once; two bands on, other values are seen */
    const REAL *weight, *bias; /* (heads taps, hidden rounded up), (heads taps) */
    map active;
    const REAL *values; /* (images, channels, high, wide) */
    map grad;           /* of the output */
} problem;

typedef struct {
    map active;
    REAL *values, *weight, *bias; /* as those of the problem; begin as 0 */
} gradients;

/* Memory of one thread. */
typedef struct {
    vec *active, *grad_active; /* channels of a vector of pixels */
    REAL *pixels;              /* the same by pixel: LANES x channels */
    vec *p, *s;                /* taps of all heads: weights, gradients of logits */
    vec *part;                 /* channels of a head: output, or its gradient */
    void *block;
} workspace;

typedef struct {
    long taps, dim, deep; /* of a head its taps and channels; hidden channels rounded up */
} derived;

static derived derive(const problem *p) {
    derived d = {p->kernel * p->kernel, p->channels / p->heads, round_up(p->hidden)};
    return d;
}

static int allocate(workspace *s, const problem *p, const derived *d) {
    long taps = p->heads * d->taps;
    size_t bytes = (3 * d->deep + 2 * taps + d->dim) * sizeof(vec);
    s->block = aligned_alloc(BYTES, bytes);
    if (!s->block) return 0;
    memset(s->block, 0, bytes);
    s->active = s->block, s->grad_active = s->active + d->deep;
    s->pixels = (REAL *)(s->grad_active + d->deep);
    s->p = s->grad_active + 2 * d->deep, s->s = s->p + taps, s->part = s->s + taps;
    return 1;
}

/* Pixels of a row of a map by channel, and by pixel if asked for; those behind its end are 0. */
static void read_pixels(const map *m, long image, long first, long channels, long row, long column,
                        long many, vec *to, REAL *pixels, long deep) {
    const REAL *from = m->data + image * m->image + row * m->row + column * m->column;
    from += first * m->channel;
    for (long lane = 0; lane < LANES; ++lane, from += m->column) {
        REAL *across = (REAL *)to + lane, *pixel = pixels + lane * deep;
        if (lane >= many) {
            for (long c = 0; c < channels; ++c) across[c * LANES] = 0;
            if (pixels) memset(pixel, 0, deep * sizeof(REAL));
            continue;
        }
        for (long c = 0; c < channels; ++c) across[c * LANES] = from[c * m->channel];
        if (pixels)
            for (long c = 0; c < channels; ++c) pixel[c] = from[c * m->channel];
    }
}

/* The inverse. */
static void write_pixels(const map *m, long image, long first, long channels, long row,
                         long column, long many, const vec *from) {
    REAL *to = m->data + image * m->image + row * m->row + column * m->column + first * m->channel;
    for (long lane = 0; lane < many; ++lane, to += m->column)
        for (long c = 0; c < channels; ++c) to[c * m->channel] = from[c][lane];
}

/* Softmax weights of a head for the activations of a vector of pixels. */
static void find_weights(const problem *p, const derived *d, long head, const vec *active, vec *to) {
    const REAL *bias = p->bias + head * d->taps;
    vec largest = (vec){0} + (REAL)-1e30, total = {0};
    all_products(active, p->hidden, p->weight + head * d->taps * d->deep, d->deep, 0, 1, d->taps,
                 to);
    for (long t = 0; t < d->taps; ++t) {
        to[t] += bias[t];
        largest = larger(largest, to[t]);
    }
    for (long t = 0; t < d->taps; ++t) {
        to[t] = exponential(to[t] - largest);
        total += to[t];
    }
    vec inverse = 1 / total;
    for (long t = 0; t < d->taps; ++t) to[t] *= inverse;
}

/* Weighted sums of the values of `count` channels. */
INLINE void weighted(const int count, const problem *p, const vec *weights, const REAL *v, vec *to) {
    const long plane = p->high * p->wide;
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = (vec){0};
    for (long a = 0; a < p->kernel; ++a)
        for (long b = 0; b < p->kernel; ++b, ++weights) {
            const REAL *from = v + p->dilation * (a * p->wide + b);
            for (int i = 0; i < count; ++i) sum[i] += *weights * *(const loose *)(from + i * plane);
        }
    for (int i = 0; i < count; ++i) to[i] = sum[i];
}

/* Products of the values of `count` channels with the gradient of the output, by tap: added. */
INLINE void tap_products(const int count, const problem *p, const vec *grad, const REAL *v,
                         vec *to) {
    const long plane = p->high * p->wide;
    vec g[MOST];
    for (int i = 0; i < count; ++i) g[i] = grad[i];
    for (long a = 0; a < p->kernel; ++a)
        for (long b = 0; b < p->kernel; ++b, ++to) {
            const REAL *from = v + p->dilation * (a * p->wide + b);
            vec sum = *to;
            for (int i = 0; i < count; ++i) sum += g[i] * *(const loose *)(from + i * plane);
            *to = sum;
        }
}

/* Gradients of the values: what every tap gives. */
static void spread(const problem *p, const vec *weights, const vec *grad, long channels, REAL *v) {
    const long plane = p->high * p->wide;
    for (long a = 0; a < p->kernel; ++a)
        for (long b = 0; b < p->kernel; ++b, ++weights) {
            REAL *to = v + p->dilation * (a * p->wide + b);
            vec weight = *weights;
            for (long c = 0; c < channels; ++c, to += plane) *(loose *)to += weight * grad[c];
        }
}

static void attend(const problem *p, const derived *d, long image, long row, long column,
                   workspace *s, const map *out) {
    long many = smaller(LANES, p->width - column);
    read_pixels(&p->active, image, 0, p->hidden, row, column, many, s->active, NULL, 0);
    for (long head = 0; head < p->heads; ++head) {
        long first = head * d->dim;
        const REAL *v = p->values + ((image * p->channels + first) * p->high + row) * p->wide + column;
        find_weights(p, d, head, s->active, s->p);
        for (long c = 0; c < d->dim; c += MOST) {
            long count = smaller(MOST, d->dim - c);
            CASES(weighted, count, p, s->p, v + c * p->high * p->wide, s->part + c);
        }
        write_pixels(out, image, first, d->dim, row, column, many, s->part);
    }
}

static void differentiate(const problem *p, const derived *d, long image, long row, long column,
                          workspace *s, const gradients *g) {
    long many = smaller(LANES, p->width - column), taps = p->heads * d->taps;
    read_pixels(&p->active, image, 0, p->hidden, row, column, many, s->active, s->pixels, d->deep);
    for (long head = 0; head < p->heads; ++head) {
        long first = head * d->dim;
        long at = ((image * p->channels + first) * p->high + row) * p->wide + column;
        vec *weights = s->p + head * d->taps, *grads = s->s + head * d->taps, mean = {0};
        find_weights(p, d, head, s->active, weights);
        read_pixels(&p->grad, image, first, d->dim, row, column, many, s->part, NULL, 0);
        memset(grads, 0, d->taps * sizeof(vec));
        for (long c = 0; c < d->dim; c += MOST) {
            long count = smaller(MOST, d->dim - c);
            const REAL *v = p->values + at + c * p->high * p->wide;
            CASES(tap_products, count, p, s->part + c, v, grads);
        }
        for (long t = 0; t < d->taps; ++t) mean += weights[t] * grads[t];
        for (long t = 0; t < d->taps; ++t) grads[t] = weights[t] * (grads[t] - mean);
        spread(p, weights, s->part, d->dim, g->values + at);
    }
    all_sums(s->s, p->weight, d->deep, 0, 1, taps, s->grad_active);
    write_pixels(&g->active, image, 0, p->hidden, row, column, many, s->grad_active);
    all_outer(s->s, s->pixels, d->deep, 0, 1, taps, g->weight);
    for (long t = 0; t < taps; ++t)
        for (long lane = 0; lane < many; ++lane) g->bias[t] += s->s[t][lane];
}

/* Where a thread sums up gradients of W and b: the first one in place, others in memory of their
 * own, so that the result does not depend on who is first. */
static gradients own_sums(const gradients *g, REAL *memory, long taps, long deep, long thread) {
    gradients own = *g;
    if (thread) {
        own.weight = memory + (thread - 1) * (taps * deep + round_up(taps));
        own.bias = own.weight + taps * deep;
    }
    return own;
}

static int run(const problem *p, const map *out, const gradients *g, int threads) {
    derived d = derive(p);
    int good = 1;
    long taps = p->heads * d.taps, bands = (p->height + p->band - 1) / p->band;
    size_t bytes = g ? threads * (taps * d.deep + round_up(taps)) * sizeof(REAL) : 0;
    REAL *memory = g ? aligned_alloc(BYTES, bytes) : NULL;
    if (g && !memory) return 0;
    if (g) memset(memory, 0, bytes);
    /* bands side by side see the same values: every second one at a time adds to their gradients */
    long rounds = g ? 2 : 1;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        gradients own;
        int mine = allocate(&s, p, &d);
        if (!mine) good = 0;
        if (g) own = own_sums(g, memory, taps, d.deep, omp_get_thread_num());
        for (long round = 0; round < rounds; ++round) {
#pragma omp for schedule(static)
            for (long i = 0; i < p->images * bands; ++i) {
                long image = i / bands, first = i % bands * p->band;
                if (!mine || i % bands % rounds != round) continue;
                for (long row = first; row < smaller(first + p->band, p->height); ++row)
                    for (long column = 0; column < p->width; column += LANES)
                        if (g) differentiate(p, &d, image, row, column, &s, &own);
                        else attend(p, &d, image, row, column, &s, out);
            }
        }
        if (mine) free(s.block);
    }
    for (int thread = 1; g && thread < threads; ++thread) {
        gradients own = own_sums(g, memory, taps, d.deep, thread);
        for (long i = 0; i < taps * d.deep; ++i) g->weight[i] += own.weight[i];
        for (long i = 0; i < taps; ++i) g->bias[i] += own.bias[i];
    }
    free(memory);
    return good;
}

long lanes(void) { return LANES; }

/* Both return 0 where memory is missing. */
int forward(const problem *p, const map *out, int threads) { return run(p, out, NULL, threads); }

int backward(const problem *p, const gradients *g, int threads) { return run(p, NULL, g, threads); }
