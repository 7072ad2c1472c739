/* Maps of all heads mixed, shifted and added up (the convolution path of ACmix), and gradients.
 *
 *   z[j, p] = sum_m fc[p, m] x[m, j] + bias[p],   y[j, o] = sum_p w[j, o, p] * z[j, p]   (k x k)
 *
 * Channels j do not meet but in the gradients of fc and bias. A band of rows of a channel is mixed
 * into memory that stays in the cache, with zeros around the map: the values of a tap are then as far
 * from its pixels everywhere. Vectors run over these rows as if they were one, so that little is
 * lost to narrow maps, and several outputs are summed up at once. With a stride s a map is kept as
 * s x s maps of every s-th row and column, its phases: tap (a, b) reads phase (a mod s, b mod s).
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */
#include <stdlib.h>
#include <string.h>

#include "products.h"

typedef struct {
    long images, maps, dim, outputs, mixed, kernel, stride, height, width;
    long rows, columns; /* of the outputs */
    long band;          /* rows of outputs that are done at once */
    const REAL *x;      /* (images, maps, dim, height, width) */
    const REAL *fc;     /* (mixed, maps) */
    const REAL *bias;   /* (mixed), or NULL */
    const REAL *weight; /* (dim, outputs, mixed, kernel, kernel) */
    const REAL *grad;   /* (images, dim, outputs, rows, columns) */
} problem;

typedef struct {
    REAL *x, *fc, *bias, *weight; /* as those of the problem; fc and bias begin as 0 */
} gradients;

/* A tap in phases, and how far its values are from the pixels of the output. */
typedef struct {
    long phase, offset;
} tap;

/* Memory of one thread. Rows with their border are `wide` numbers apart; what is computed for
 * pixels, also of the border, is compacted then. */
typedef struct {
    REAL *mixed, *grad; /* phases of maps z, gradient of the outputs, with their borders */
    REAL *sums;         /* outputs, or phases of gradients of z */
    REAL *plain;        /* maps z, or their gradients, compact */
    vec *weight;        /* gradients of the weights of a channel, by lane */
    tap *taps;
    void *block;
} workspace;

typedef struct {
    long half, taps, phases;
    long plane, out_plane;    /* numbers of a map, of an output */
    long reach, above, below; /* rows of a phase below those of a band, of gradients around it */
    long wide, step;          /* of rows, and of rows and columns */
    long high;                /* numbers of a phase with its border, and what a last vector reads */
    long flat, dense;         /* numbers of a map of sums, of a compact one */
} derived;

static derived derive(const problem *p) {
    derived d;
    long s = p->stride, rows = smaller(p->band, p->rows);
    d.half = p->kernel / 2, d.taps = p->kernel * p->kernel, d.phases = s * s;
    d.plane = p->height * p->width, d.out_plane = p->rows * p->columns;
    d.reach = (p->kernel - 1) / s, d.above = d.reach - d.half / s, d.below = (d.half + s - 1) / s;
    long border = d.above + d.below > d.reach ? d.above + d.below : d.reach;
    d.wide = p->columns + border, d.step = d.wide + 1;
    d.flat = round_up((rows + 1) * d.wide), d.dense = round_up((s * rows + p->kernel) * p->width);
    d.high = round_up(d.flat + border * d.step);
    return d;
}

static int allocate(workspace *s, const problem *p, const derived *d, int backward) {
    long mixed = p->mixed * d->phases, grads = backward ? p->outputs : 0;
    long sums = backward ? mixed : p->outputs, weights = grads * p->mixed * d->taps;
    long numbers = (mixed + grads) * d->high + sums * d->flat + p->mixed * d->dense;
    size_t bytes = numbers * sizeof(REAL) + weights * sizeof(vec) + d->taps * sizeof(tap);
    s->block = aligned_alloc(BYTES, (bytes + BYTES - 1) / BYTES * BYTES);
    if (!s->block) return 0;
    memset(s->block, 0, bytes);
    s->mixed = s->block, s->grad = s->mixed + mixed * d->high;
    s->sums = s->grad + grads * d->high, s->plain = s->sums + sums * d->flat;
    s->weight = (vec *)(s->plain + p->mixed * d->dense);
    s->taps = (tap *)(s->weight + weights);
    for (long t = 0; t < d->taps; ++t) {
        long a = t / p->kernel, b = t % p->kernel, n = p->stride;
        s->taps[t] = (tap){a % n * n + b % n, a / n * d->wide + b / n};
    }
    return 1;
}

/* Numbers of which `many` are there; the others are 0. */
INLINE vec read(const REAL *from, long many) {
    if (many >= LANES) return (vec) * (const loose *)from;
    vec value = {0};
    memcpy(&value, from, many * sizeof(REAL));
    return value;
}

/* Phases of the rows first .. last - 1 of a map for a band of outputs, zeros around them. */
static void split(const problem *p, const derived *d, const REAL *from, long top, long rows,
                  long first, long last, REAL *to) {
    long s = p->stride;
    for (long phase = 0; phase < d->phases; ++phase, to += d->high)
        for (long row = 0; row < rows + d->reach; ++row) {
            long y = s * (top + row) + phase / s - d->half, shift = phase % s - d->half;
            REAL *line = to + row * d->wide;
            memset(line, 0, d->wide * sizeof(REAL));
            if (y < first || y >= last) continue;
            const REAL *source = from + y * p->width;
            if (s == 1) memcpy(line - shift, source, p->width * sizeof(REAL));
            else
                for (long u = 0; u < d->wide; ++u) {
                    long x = s * u + shift;
                    if (x >= 0 && x < p->width) line[u] = source[x];
                }
        }
}

/* The gradient of an output for a band, and rows above and below that its values have to do with. */
static void lay_out(const problem *p, const derived *d, const REAL *from, long top, long rows,
                    REAL *to) {
    for (long y = top - d->above; y < top + rows + d->below; ++y, to += d->wide)
        if (y < 0 || y >= p->rows) memset(to, 0, d->wide * sizeof(REAL));
        else memcpy(to + d->above, from + y * p->columns, p->columns * sizeof(REAL));
}

/* Rows of a map, whose phases begin with the first pixel that belongs to a band. */
static void join(const problem *p, const derived *d, const REAL *from, long rows, REAL *to) {
    long s = p->stride, none = d->half / s;
    for (long y = d->half; y < d->half + rows; ++y, to += p->width) {
        const REAL *line = from + y % s * s * d->flat + (y / s - none) * d->wide;
        if (s == 1) memcpy(to, line, p->width * sizeof(REAL));
        else
            for (long x = 0; x < p->width; ++x)
                to[x] = line[(x + d->half) % s * d->flat + (x + d->half) / s - none];
    }
}

/* `count` mixed maps at a vector of pixels. */
INLINE void mix(const int count, const problem *p, const derived *d, const REAL *x, long first,
                long many, REAL *to) {
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = (vec){0} + (p->bias ? p->bias[first + i] : 0);
    const REAL *fc = p->fc + first * p->maps;
    for (long m = 0; m < p->maps; ++m, x += p->dim * d->plane) {
        vec value = read(x, many);
        for (int i = 0; i < count; ++i) sum[i] += value * fc[i * p->maps + m];
    }
    for (int i = 0; i < count; ++i) *(vec *)(to + i * d->dense) = sum[i];
}

/* Mix the rows that a band sees of a channel, x being its first map. */
static void mix_band(const problem *p, const derived *d, const REAL *x, long top, long rows,
                     workspace *s) {
    long first = p->stride * top - d->half, last = first + p->stride * (rows - 1) + p->kernel;
    if (first < 0) first = 0;
    if (last > p->height) last = p->height;
    long numbers = (last - first) * p->width;
    for (long i = 0; i < p->mixed; i += MOST) {
        long count = smaller(MOST, p->mixed - i);
        for (long at = 0; at < numbers; at += LANES)
            CASES(mix, count, p, d, x + first * p->width + at, i, numbers - at,
                  s->plain + i * d->dense + at);
    }
    for (long i = 0; i < p->mixed; ++i)
        split(p, d, s->plain + i * d->dense - first * p->width, top, rows, first, last,
              s->mixed + i * d->phases * d->high);
}

/* `count` outputs at a vector of pixels: z is there in the first map, w the first output's weight. */
INLINE void shifted_sums(const int count, const problem *p, const derived *d, const tap *taps,
                         const REAL *z, const REAL *w, REAL *to) {
    const long next = p->mixed * d->taps;
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = (vec){0};
    for (long m = 0; m < p->mixed; ++m, z += d->phases * d->high)
        for (const tap *t = taps; t < taps + d->taps; ++t, ++w) {
            vec value = *(const loose *)(z + t->phase * d->high + t->offset);
            for (int i = 0; i < count; ++i) sum[i] += value * w[i * next];
        }
    for (int i = 0; i < count; ++i) *(vec *)(to + i * d->flat) = sum[i];
}

static void do_forward(const problem *p, const derived *d, const REAL *x, const REAL *w, long top,
                       long rows, workspace *s, REAL *out) {
    mix_band(p, d, x, top, rows, s);
    for (long o = 0; o < p->outputs; o += MOST) {
        long count = smaller(MOST, p->outputs - o);
        for (long at = 0; at < rows * d->wide; at += LANES)
            CASES(shifted_sums, count, p, d, s->taps, s->mixed + at, w + o * p->mixed * d->taps,
                  s->sums + o * d->flat + at);
    }
    for (long o = 0; o < p->outputs; ++o)
        for (long row = 0; row < rows; ++row)
            memcpy(out + o * d->out_plane + (top + row) * p->columns,
                   s->sums + o * d->flat + row * d->wide, p->columns * sizeof(REAL));
}

/* The gradient of a phase of `count` mixed maps at a vector of pixels, from that of the outputs. */
INLINE void sums_back(const int count, const problem *p, const derived *d, const tap *taps,
                      long phase, const REAL *g, const REAL *w, REAL *to) {
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = (vec){0};
    for (long o = 0; o < p->outputs; ++o, g += d->high, w += p->mixed * d->taps)
        for (long t = 0; t < d->taps; ++t) {
            if (taps[t].phase != phase) continue;
            vec value = *(const loose *)(g - taps[t].offset);
            for (int i = 0; i < count; ++i) sum[i] += value * w[i * d->taps + t];
        }
    for (int i = 0; i < count; ++i) *(vec *)(to + i * d->phases * d->flat) = sum[i];
}

/* Add the gradients of the weights of `count` outputs for one tap of one mixed map. */
INLINE void weight_back(const int count, const problem *p, const derived *d, const REAL *z,
                        const REAL *g, long numbers, vec *to) {
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = to[i * p->mixed * d->taps];
    for (long at = 0; at < numbers; at += LANES) {
        vec value = read(z + at, numbers - at);
        for (int i = 0; i < count; ++i) sum[i] += value * *(const loose *)(g + i * d->high + at);
    }
    for (int i = 0; i < count; ++i) to[i * p->mixed * d->taps] = sum[i];
}

/* Add the gradients of fc for `count` mixed maps and one map x; without x, those of the bias. */
INLINE void fc_back(const int count, const derived *d, const REAL *x, const REAL *back,
                    long numbers, long step, REAL *to) {
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = (vec){0};
    for (long at = 0; at < numbers; at += LANES) {
        long many = numbers - at;
        vec value = x ? read(x + at, many) : (vec){0} + 1;
        for (int i = 0; i < count; ++i) sum[i] += value * read(back + i * d->dense + at, many);
    }
    for (int i = 0; i < count; ++i) to[i * step] += lane_sum(sum[i]);
}

/* The gradient of `count` maps x at a vector of pixels. */
INLINE void mix_back(const int count, const problem *p, const derived *d, const REAL *back,
                     const REAL *fc, long many, REAL *to) {
    vec sum[MOST];
    for (int i = 0; i < count; ++i) sum[i] = (vec){0};
    for (long m = 0; m < p->mixed; ++m, back += d->dense, fc += p->maps) {
        vec value = *(const vec *)back;
        for (int i = 0; i < count; ++i) sum[i] += value * fc[i];
    }
    for (int i = 0; i < count; ++i, to += p->dim * d->plane)
        if (many >= LANES) *(loose *)to = sum[i];
        else memcpy(to, &sum[i], many * sizeof(REAL));
}

static void do_backward(const problem *p, const derived *d, const REAL *x, const REAL *w,
                        const REAL *grad, long top, long rows, workspace *s, REAL *grad_x,
                        const gradients *g) {
    long first = p->stride * top, own = smaller(p->stride * rows, p->height - first);
    long dense = own * p->width, behind = (d->half + own - 1) / p->stride - d->half / p->stride + 1;
    mix_band(p, d, x, top, rows, s);
    for (long o = 0; o < p->outputs; ++o)
        lay_out(p, d, grad + o * d->out_plane, top, rows, s->grad + o * d->high);
    for (long m = 0; m < p->mixed; ++m)
        for (long t = 0; t < d->taps; ++t) {
            const REAL *z = s->mixed + (m * d->phases + s->taps[t].phase) * d->high;
            for (long o = 0; o < p->outputs; o += MOST) {
                long count = smaller(MOST, p->outputs - o);
                CASES(weight_back, count, p, d, z + s->taps[t].offset,
                      s->grad + o * d->high + d->above * d->step, rows * d->wide,
                      s->weight + o * p->mixed * d->taps + m * d->taps + t);
            }
        }
    for (long i = 0; i < p->mixed; i += MOST) {
        long count = smaller(MOST, p->mixed - i);
        for (long phase = 0; phase < d->phases; ++phase)
            for (long at = 0; at < behind * d->wide; at += LANES)
                CASES(sums_back, count, p, d, s->taps, phase, s->grad + d->reach * d->step + at,
                      w + i * d->taps, s->sums + (i * d->phases + phase) * d->flat + at);
    }
    for (long i = 0; i < p->mixed; ++i)
        join(p, d, s->sums + i * d->phases * d->flat, own, s->plain + i * d->dense);
    x += first * p->width, grad_x += first * p->width;
    for (long m = 0; m < p->maps; m += MOST) {
        long count = smaller(MOST, p->maps - m);
        for (long at = 0; at < dense; at += LANES)
            CASES(mix_back, count, p, d, s->plain + at, p->fc + m, dense - at,
                  grad_x + m * p->dim * d->plane + at);
    }
    for (long i = 0; i < p->mixed; i += MOST) {
        long count = smaller(MOST, p->mixed - i);
        const REAL *back = s->plain + i * d->dense;
        for (long m = 0; m < p->maps; ++m)
            CASES(fc_back, count, d, x + m * p->dim * d->plane, back, dense, p->maps,
                  g->fc + i * p->maps + m);
        if (g->bias) CASES(fc_back, count, d, NULL, back, dense, 1, g->bias + i);
    }
}

/* out (images, dim, outputs, rows, columns). Both return 0 where memory is missing. */
int forward(const problem *p, REAL *out, int threads) {
    derived d = derive(p);
    int good = 1;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        int mine = allocate(&s, p, &d, 0);
        if (!mine) good = 0;
#pragma omp for schedule(static)
        for (long i = 0; i < p->images * p->dim; ++i) {
            if (!mine) continue;
            long image = i / p->dim, j = i % p->dim;
            for (long top = 0; top < p->rows; top += p->band)
                do_forward(p, &d, p->x + (image * p->maps * p->dim + j) * d.plane,
                           p->weight + j * p->outputs * p->mixed * d.taps, top,
                           smaller(p->band, p->rows - top), &s, out + i * p->outputs * d.out_plane);
        }
        if (mine) free(s.block);
    }
    return good;
}

int backward(const problem *p, const gradients *g, int threads) {
    derived d = derive(p);
    int good = 1;
    long number = p->mixed * (p->maps + 1); /* of fc and bias, which all channels add to */
    REAL *memory = calloc(threads * number, sizeof(REAL));
    if (!memory) return 0;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        gradients own = *g;
        own.fc = memory + omp_get_thread_num() * number;
        if (g->bias) own.bias = own.fc + p->mixed * p->maps;
        int mine = allocate(&s, p, &d, 1);
        if (!mine) good = 0;
#pragma omp for schedule(static)
        for (long j = 0; j < p->dim; ++j) {
            if (!mine) continue;
            long weights = p->outputs * p->mixed * d.taps;
            memset(s.weight, 0, weights * sizeof(vec));
            for (long image = 0; image < p->images; ++image) {
                long at = (image * p->maps * p->dim + j) * d.plane;
                const REAL *grad = p->grad + (image * p->dim + j) * p->outputs * d.out_plane;
                for (long top = 0; top < p->rows; top += p->band)
                    do_backward(p, &d, p->x + at, p->weight + j * weights, grad, top,
                                smaller(p->band, p->rows - top), &s, g->x + at, &own);
            }
            for (long i = 0; i < weights; ++i) g->weight[j * weights + i] = lane_sum(s.weight[i]);
        }
        if (mine) free(s.block);
    }
    for (int thread = 0; thread < threads; ++thread) {
        REAL *from = memory + thread * number;
        for (long i = 0; i < p->mixed * p->maps; ++i) g->fc[i] += from[i];
        for (long i = 0; g->bias && i < p->mixed; ++i) g->bias[i] += from[p->mixed * p->maps + i];
    }
    free(memory);
    return good;
}
