/* Attention of tiles of queries to rectangles of keys, and its gradients.
 *
 *   out[p] = sum_j softmax_j(scale q[p] . k[j] + bias[j - p] + q[p] . (rel_h[row of j - row of p]
 *                            + rel_w[column of j - column of p])) v[j],   j that p sees
 *
 * What a query sees is a product of a pattern of rows and one of columns (`axis`, as `Tiles` in
 * local_attention/tiles.py has it): neighbouring slots for queries are a tile, and the positions
 * that any of them sees are one stretch. Lanes are the queries of a tile, so that keys, values and
 * the softmax need no sums over lanes; one number of a key is multiplied with a vector of queries.
 * Logits live as long as a vector of queries does, and are computed again for the gradients.
 *
 * Keys and values of a band of tile rows are laid out by position first: pixels beyond the border,
 * mirrored ones and those of dilated windows are then as all others. Bias, tables and hidden pairs
 * are laid out by the type of a tile, which most tiles have in common, once for every head.
 *
 * Compiled by hybrid_mm/ops/native/__init__.py, once for REAL = float and once for double.
 */
#include <stdlib.h>
#include <string.h>

#include "products.h"

#define LOW ((REAL)-1e30) /* logit of a key that is not seen; 0 * inf would not be 0 */

/* A pattern of rows or columns, cut into tiles. */
typedef struct {
    long number, size, reach, positions, step, types;
    const long *queries; /* number x size: query of a slot, -1 for none */
    const long *source;  /* positions: key, -1 for zeros */
    const long *start;   /* number: first position that a tile sees */
    const long *type;    /* number: tiles of a type have the same `base` and `valid` */
    const long *base;    /* types: offset of the first position from the first query */
    const long *count;   /* types: queries, in the first slots */
    const long *low, *high;     /* types: positions low .. high - 1 are seen by any */
    const unsigned char *valid; /* types x size x reach: whether a query sees a position */
    long all_valid;
} axis;

/* A map (images, heads, rows, columns, channels) anywhere in memory. */
typedef struct {
    const REAL *data;
    long image, head, row, column, channel;
} map;

/* The same to write to; the channels of a pixel lie side by side. */
typedef struct {
    REAL *data;
    long image, head, row, column;
} target;

/* A table of positions: (heads or 1, ...), of odd lengths about a middle. */
typedef struct {
    const REAL *data;
    long heads, rows, columns; /* columns: of a relative table the channels */
} table;

typedef struct {
    long images, heads, dim, value_dim, key_rows, key_columns, query_rows, query_columns;
    long band;     /* tile rows that are laid out at once */
    long parallel; /* bands two apart share no key: those of a map may run side by side */
    double scale;
    axis rows, columns;
    map q, k, v, grad;
    table bias, rel_h, rel_w;
    const REAL *laid_out; /* what `lay_out_bias` made of a bias, in its place, or NULL */
} problem;

typedef struct {
    REAL *q, *k, *v, *bias, *rel_h, *rel_w; /* contiguous; those of keys and tables begin as 0 */
} gradients;

/* Sizes that follow from those of the problem. */
typedef struct {
    long vectors, keys, wide, value_wide, band_rows; /* of vectors and keys the most */
    int pairs, terms; /* whether there is something to add for pairs, for rows and columns */
} derived;

static derived derive(const problem *p) {
    const axis *r = &p->rows, *c = &p->columns;
    derived d;
    d.vectors = round_up(r->size * c->size) / LANES;
    d.keys = r->reach * c->reach;
    d.wide = round_up(p->dim), d.value_wide = round_up(p->value_dim);
    d.band_rows = 0;
    for (long first = 0; first < r->number; first += p->band) {
        long last = first + p->band < r->number ? first + p->band : r->number;
        long rows = r->start[last - 1] + r->reach - r->start[first];
        if (rows > d.band_rows) d.band_rows = rows;
    }
    int all = r->all_valid && c->all_valid;
    d.pairs = p->bias.data || p->laid_out;
    d.terms = p->rel_h.data || p->rel_w.data || (!d.pairs && !all);
    return d;
}

/* A relative table of an axis by type of tile, position, channel and query, and its gradient. */
typedef struct {
    vec *value, *grad;
} laid_out;

/* Memory of one thread. */
typedef struct {
    long head;
    REAL *k, *v, *grad_k, *grad_v; /* band_rows x positions of columns x wide */
    vec *q, *out, *grad, *grad_q;  /* channels of a vector of queries */
    REAL *query, *grad_out;        /* the same by query: LANES x wide */
    vec *p, *s;                    /* keys: weights, gradients of logits */
    vec *row, *column, *grad_row, *grad_column; /* terms of the logits */
    /* by type of rows, of columns, and vector: */
    vec *bias, *grad_bias;             /* ... x keys */
    laid_out rel_h, rel_w;             /* ... x reach x dim */
    vec *hidden_rows, *hidden_columns; /* ... x reach: 0 or LOW */
    void *block;
} workspace;

/* Hands out parts of a block of memory, or with `block` NULL counts them. */
static void *take(char *block, size_t *used, size_t bytes) {
    void *part = block ? block + *used : NULL;
    *used += (bytes + BYTES - 1) / BYTES * BYTES;
    return part;
}

static long vectors_of_types(const problem *p, const derived *d) {
    return p->rows.types * p->columns.types * d->vectors;
}

static size_t divide(workspace *s, const problem *p, const derived *d, int backward) {
    size_t used = 0, real = sizeof(REAL), one = sizeof(vec);
    char *block = s->block;
    long pixels = d->band_rows * p->columns.positions, r = p->rows.reach, c = p->columns.reach;
    long all = vectors_of_types(p, d), pairs = p->bias.data ? all * d->keys : 0;
    long rel_h = p->rel_h.data ? all * r * p->dim : 0;
    long rel_w = p->rel_w.data ? all * c * p->dim : 0;
    s->k = take(block, &used, pixels * d->wide * real);
    s->v = take(block, &used, pixels * d->value_wide * real);
    s->q = take(block, &used, d->wide * one);
    s->out = take(block, &used, d->value_wide * one);
    s->p = take(block, &used, d->keys * one);
    s->row = take(block, &used, r * one);
    s->column = take(block, &used, c * one);
    s->bias = take(block, &used, pairs * one);
    s->rel_h.value = take(block, &used, rel_h * one);
    s->rel_w.value = take(block, &used, rel_w * one);
    s->hidden_rows = take(block, &used, all * r * one);
    s->hidden_columns = take(block, &used, all * c * one);
    if (!backward) return used;
    s->grad_k = take(block, &used, pixels * d->wide * real);
    s->grad_v = take(block, &used, pixels * d->value_wide * real);
    s->grad = take(block, &used, d->value_wide * one);
    s->grad_q = take(block, &used, d->wide * one);
    s->query = take(block, &used, LANES * d->wide * real);
    s->grad_out = take(block, &used, LANES * d->value_wide * real);
    s->s = take(block, &used, d->keys * one);
    s->grad_row = take(block, &used, r * one);
    s->grad_column = take(block, &used, c * one);
    s->grad_bias = take(block, &used, pairs * one);
    s->rel_h.grad = take(block, &used, rel_h * one);
    s->rel_w.grad = take(block, &used, rel_w * one);
    return used;
}

static int allocate(workspace *s, const problem *p, const derived *d, int backward) {
    memset(s, 0, sizeof *s);
    size_t bytes = divide(s, p, d, backward);
    s->block = aligned_alloc(BYTES, bytes);
    if (!s->block) return 0;
    memset(s->block, 0, bytes);
    s->head = -1;
    divide(s, p, d, backward);
    return 1;
}

/* The rows of positions first .. last - 1 of a map, by position and channel. */
static void lay_out(const problem *p, const map *m, long image, long head, long first, long last,
                    long dim, long wide, REAL *to) {
    const axis *rows = &p->rows, *columns = &p->columns;
    const REAL *plane = m->data + image * m->image + head * m->head;
    for (long y = first; y < last; ++y) {
        const REAL *line = rows->source[y] < 0 ? NULL : plane + rows->source[y] * m->row;
        for (long x = 0; x < columns->positions; ++x, to += wide) {
            if (!line || columns->source[x] < 0) {
                memset(to, 0, wide * sizeof(REAL));
                continue;
            }
            const REAL *pixel = line + columns->source[x] * m->column;
            if (m->channel == 1) memcpy(to, pixel, dim * sizeof(REAL));
            else for (long c = 0; c < dim; ++c) to[c] = pixel[c * m->channel];
        }
    }
}

/* Add the rows of positions first .. last - 1 to the gradient of a plane of keys. */
static void add_back(const problem *p, const REAL *from, long first, long last, long dim, long wide,
                     REAL *plane) {
    for (long y = first; y < last; ++y)
        for (long x = 0; x < p->columns.positions; ++x, from += wide) {
            long row = p->rows.source[y], column = p->columns.source[x];
            if (row < 0 || column < 0) continue;
            REAL *pixel = plane + (row * p->key_columns + column) * dim;
            for (long c = 0; c < dim; ++c) pixel[c] += from[c];
        }
}

/* What tiles of a type have in common. */
typedef struct {
    long type, row_type, column_type; /* of both, of rows, of columns */
    long rows, columns, vectors;      /* of queries */
    long top, left, height, width;    /* positions that any query sees */
} shape;

static shape shape_of(const problem *p, long row_type, long column_type) {
    const axis *r = &p->rows, *c = &p->columns;
    shape f;
    f.type = row_type * c->types + column_type;
    f.row_type = row_type, f.column_type = column_type;
    f.rows = r->count[row_type], f.columns = c->count[column_type];
    f.vectors = round_up(f.rows * f.columns) / LANES;
    f.top = r->low[row_type], f.height = r->high[row_type] - f.top;
    f.left = c->low[column_type], f.width = c->high[column_type] - f.left;
    return f;
}

/* Row (or column) of a lane's query in its tile; empty lanes are as the last query. */
static long query_of(const shape *f, int by_row, long vector, long lane) {
    long i = smaller(vector * LANES + lane, f->rows * f->columns - 1);
    return by_row ? i / f->columns : i % f->columns;
}

/* Entry of a table of a length for a position of a type of tile and its query i. */
static long entry_of(const axis *a, long length, long type, long i, long position) {
    return a->base[type] + position - a->step * i + length / 2;
}

/* Lay a relative table out for a vector of queries, or add its gradient to that of the table. */
static void relative(const problem *p, const shape *f, int by_row, long vector, const table *t,
                     long head, vec *part, REAL *grad) {
    const axis *a = by_row ? &p->rows : &p->columns;
    long first = by_row ? f->top : f->left, number = by_row ? f->height : f->width;
    head = t->heads > 1 ? head : 0;
    for (long j = first; j < first + number; ++j, part += p->dim)
        for (long lane = 0; lane < LANES; ++lane) {
            long query = query_of(f, by_row, vector, lane);
            long entry = entry_of(a, t->rows, by_row ? f->row_type : f->column_type, query, j);
            if (entry < 0 || entry >= t->rows) continue; /* of a pair that is hidden */
            long at = (head * t->rows + entry) * p->dim;
            for (long c = 0; c < p->dim; ++c)
                if (grad) grad[at + c] += part[c][lane];
                else part[c][lane] = t->data[at + c];
        }
}

static int sees(const axis *a, long type, long query, long position) {
    return a->valid[(type * a->size + query) * a->reach + position];
}

/* 0 or LOW for rows (or columns) of positions and a vector of queries. */
static void hidden(const problem *p, const shape *f, int by_row, long vector, vec *to) {
    const axis *a = by_row ? &p->rows : &p->columns;
    long first = by_row ? f->top : f->left, number = by_row ? f->height : f->width;
    for (long j = first; j < first + number; ++j, ++to)
        for (long lane = 0; lane < LANES; ++lane) {
            long type = by_row ? f->row_type : f->column_type;
            (*to)[lane] = sees(a, type, query_of(f, by_row, vector, lane), j) ? 0 : LOW;
        }
}

/* Lay the bias of all pairs out for a vector of queries, or add their gradient to the table's. */
static void pairs(const problem *p, const shape *f, long vector, long head, vec *part, REAL *grad) {
    const axis *rows = &p->rows, *columns = &p->columns;
    const table *t = &p->bias;
    head = t->heads > 1 ? head : 0;
    for (long lane = 0; lane < LANES; ++lane) {
        long qr = query_of(f, 1, vector, lane), qc = query_of(f, 0, vector, lane);
        REAL *pair = (REAL *)part + lane;
        for (long y = f->top; y < f->top + f->height; ++y) {
            long line = entry_of(rows, t->rows, f->row_type, qr, y) + head * t->rows;
            int row_seen = sees(rows, f->row_type, qr, y);
            for (long x = f->left; x < f->left + f->width; ++x, pair += LANES) {
                long entry = entry_of(columns, t->columns, f->column_type, qc, x);
                int seen = row_seen && sees(columns, f->column_type, qc, x);
                if (!grad) *pair = seen ? t->data[line * t->columns + entry] : LOW;
                else if (seen) grad[line * t->columns + entry] += *pair;
            }
        }
    }
}

/* Lay out what depends on the head, or with `g` add the gradients of that to those of tables. */
static void do_tables(const problem *p, const derived *d, workspace *s, const gradients *g) {
    for (long a = 0; a < p->rows.types; ++a)
        for (long b = 0; b < p->columns.types; ++b) {
            shape f = shape_of(p, a, b);
            for (long i = 0; i < f.vectors; ++i) {
                long at = f.type * d->vectors + i, row = at * p->rows.reach;
                long column = at * p->columns.reach, key = at * d->keys;
                if (p->bias.data)
                    pairs(p, &f, i, s->head, (g ? s->grad_bias : s->bias) + key, g ? g->bias : NULL);
                if (p->rel_h.data)
                    relative(p, &f, 1, i, &p->rel_h, s->head,
                             (g ? s->rel_h.grad : s->rel_h.value) + row * p->dim,
                             g ? g->rel_h : NULL);
                if (p->rel_w.data)
                    relative(p, &f, 0, i, &p->rel_w, s->head,
                             (g ? s->rel_w.grad : s->rel_w.value) + column * p->dim,
                             g ? g->rel_w : NULL);
                if (g || d->pairs) continue;
                hidden(p, &f, 1, i, s->hidden_rows + row);
                hidden(p, &f, 0, i, s->hidden_columns + column);
            }
        }
}

/* Before another head is worked on; with gradients, add those of the head before to the tables'. */
static void change_head(const problem *p, const derived *d, long head, workspace *s,
                        const gradients *g) {
    if (s->head == head) return;
    if (g && s->head >= 0) {
        do_tables(p, d, s, g);
        long all = vectors_of_types(p, d) * sizeof(vec);
        if (p->bias.data) memset(s->grad_bias, 0, all * d->keys);
        if (p->rel_h.data) memset(s->rel_h.grad, 0, all * p->rows.reach * p->dim);
        if (p->rel_w.data) memset(s->rel_w.grad, 0, all * p->columns.reach * p->dim);
    }
    s->head = head;
    if (head < 0) return;
    if (p->laid_out) s->bias = (vec *)p->laid_out + head * vectors_of_types(p, d) * d->keys;
    if (p->bias.data || d->terms) do_tables(p, d, s, NULL);
}

/* A tile, and the vector of its queries that is being worked on. */
typedef struct {
    long row, column; /* of tiles */
    shape shape;
    long vector;
    long queries[BYTES / 4];    /* pixel of every lane's query, -1 for none */
    const REAL *k, *v;          /* first key and value that it sees */
    REAL *grad_k, *grad_v;
} tile;

static void find_queries(const problem *p, tile *t) {
    const axis *rows = &p->rows, *columns = &p->columns;
    for (long lane = 0; lane < LANES; ++lane) {
        long i = t->vector * LANES + lane;
        t->queries[lane] = -1;
        if (i >= t->shape.rows * t->shape.columns) continue;
        long row = rows->queries[t->row * rows->size + i / t->shape.columns];
        long column = columns->queries[t->column * columns->size + i % t->shape.columns];
        t->queries[lane] = row * p->query_columns + column;
    }
}

/* Queries of a tile by channel, and by query if asked for; empty lanes are 0. */
static void read_queries(const problem *p, const tile *t, const map *m, long image, long head,
                         long dim, long wide, vec *to, REAL *by_query) {
    const REAL *plane = m->data + image * m->image + head * m->head;
    for (long lane = 0; lane < LANES; ++lane) {
        long at = t->queries[lane];
        REAL *column = (REAL *)to + lane;
        if (at < 0) {
            for (long c = 0; c < dim; ++c) column[c * LANES] = 0;
            if (by_query) memset(by_query + lane * wide, 0, wide * sizeof(REAL));
            continue;
        }
        const REAL *pixel =
            plane + at / p->query_columns * m->row + at % p->query_columns * m->column;
        for (long c = 0; c < dim; ++c) column[c * LANES] = pixel[c * m->channel];
        if (by_query)
            for (long c = 0; c < dim; ++c) by_query[lane * wide + c] = pixel[c * m->channel];
    }
}

/* The inverse. */
static void write_queries(const problem *p, const tile *t, const vec *from, long dim, long image,
                          long head, const target *m) {
    REAL *plane = m->data + image * m->image + head * m->head;
    for (long lane = 0; lane < LANES; ++lane) {
        long at = t->queries[lane];
        if (at < 0) continue;
        REAL *to = plane + at / p->query_columns * m->row + at % p->query_columns * m->column;
        for (long c = 0; c < dim; ++c) to[c] = from[c][lane];
    }
}

/* Terms of the logits for rows (or columns) of positions, which `hidden` hides. */
static void find_terms(const problem *p, const derived *d, long number, const vec *q,
                       const table *t, const vec *part, const vec *hidden, vec *to) {
    for (long j = 0; j < number; ++j, part += p->dim) {
        vec sum = d->pairs ? (vec){0} : hidden[j];
        if (t->data)
            for (long c = 0; c < p->dim; ++c) sum += q[c] * part[c];
        to[j] = sum;
    }
}

/* Take the gradient of such terms to the queries and the laid out table. */
static void terms_back(const problem *p, long number, const vec *q, const vec *part, vec *grad_part,
                       const vec *grad, vec *grad_q) {
    for (long j = 0; j < number; ++j, part += p->dim, grad_part += p->dim)
        for (long c = 0; c < p->dim; ++c) {
            grad_part[c] += grad[j] * q[c];
            grad_q[c] += grad[j] * part[c];
        }
}

/* A logit with what is added to it, which hides the key if it is very low: whatever the logit is. */
INLINE vec with_term(vec logit, vec term) {
    bits low = term < LOW / 2;
    return (vec)(((bits)(logit + term) & ~low) | ((bits)((vec){0} + LOW) & low));
}

/* exp(logit - largest logit) of all keys into s->p, and the vector of their sums. */
static vec weights(const problem *p, const derived *d, const tile *t, workspace *s) {
    const shape *f = &t->shape;
    long keys = f->height * f->width, at = f->type * d->vectors + t->vector;
    REAL scale = (REAL)p->scale;
    all_products(s->q, p->dim, t->k, d->wide, p->columns.positions * d->wide, f->height, f->width,
                 s->p);
    const vec *bias = d->pairs ? s->bias + at * d->keys : NULL;
    vec largest = (vec){0} + 4 * LOW, total = {0};
    if (!d->terms)
        for (long i = 0; i < keys; ++i) {
            vec logit = s->p[i] * scale;
            if (bias) logit = with_term(logit, bias[i]);
            s->p[i] = logit;
            largest = larger(largest, logit);
        }
    else {
        long row = at * p->rows.reach, column = at * p->columns.reach;
        find_terms(p, d, f->height, s->q, &p->rel_h, s->rel_h.value + row * p->dim,
                   s->hidden_rows + row, s->row);
        find_terms(p, d, f->width, s->q, &p->rel_w, s->rel_w.value + column * p->dim,
                   s->hidden_columns + column, s->column);
        for (long y = 0, i = 0; y < f->height; ++y)
            for (long x = 0; x < f->width; ++x, ++i) {
                vec term = s->row[y] + s->column[x];
                if (bias) term += bias[i];
                vec logit = with_term(s->p[i] * scale, term);
                s->p[i] = logit;
                largest = larger(largest, logit);
            }
    }
    for (long i = 0; i < keys; ++i) {
        s->p[i] = exponential(s->p[i] - largest);
        total += s->p[i];
    }
    return total;
}

static void attend(const problem *p, const derived *d, tile *t, long image, long head, workspace *s,
                   const target *out) {
    find_queries(p, t);
    read_queries(p, t, &p->q, image, head, p->dim, d->wide, s->q, NULL);
    vec total = weights(p, d, t, s);
    all_sums(s->p, t->v, d->value_wide, p->columns.positions * d->value_wide, t->shape.height,
             t->shape.width, s->out);
    for (long c = 0; c < p->value_dim; ++c) s->out[c] /= total;
    write_queries(p, t, s->out, p->value_dim, image, head, out);
}

static void differentiate(const problem *p, const derived *d, tile *t, long image, long head,
                          workspace *s, const target *grad_q) {
    long height = t->shape.height, width = t->shape.width, keys = height * width;
    long at = t->shape.type * d->vectors + t->vector;
    long pitch = p->columns.positions * d->wide, value_pitch = p->columns.positions * d->value_wide;
    REAL scale = (REAL)p->scale;
    find_queries(p, t);
    read_queries(p, t, &p->q, image, head, p->dim, d->wide, s->q, s->query);
    read_queries(p, t, &p->grad, image, head, p->value_dim, d->value_wide, s->grad, s->grad_out);
    vec total = weights(p, d, t, s), mean = {0};
    all_products(s->grad, p->value_dim, t->v, d->value_wide, value_pitch, height, width, s->s);
    for (long i = 0; i < keys; ++i) mean += s->p[i] * s->s[i];
    vec inverse = 1 / total;
    mean *= inverse;
    for (long i = 0; i < keys; ++i) {
        s->p[i] *= inverse;
        s->s[i] = s->p[i] * (s->s[i] - mean);
    }
    all_outer(s->p, s->grad_out, d->value_wide, value_pitch, height, width, t->grad_v);
    if (d->pairs) {
        vec *bias = s->grad_bias + at * d->keys;
        for (long i = 0; i < keys; ++i) bias[i] += s->s[i];
    }
    for (long c = 0; c < LANES * d->wide; ++c) s->query[c] *= scale;
    all_outer(s->s, s->query, d->wide, pitch, height, width, t->grad_k);
    all_sums(s->s, t->k, d->wide, pitch, height, width, s->grad_q);
    for (long c = 0; c < p->dim; ++c) s->grad_q[c] *= scale;
    if (p->rel_h.data) {
        long first = at * p->rows.reach * p->dim;
        for (long y = 0, i = 0; y < height; ++y) {
            vec sum = {0};
            for (long x = 0; x < width; ++x) sum += s->s[i++];
            s->grad_row[y] = sum;
        }
        terms_back(p, height, s->q, s->rel_h.value + first, s->rel_h.grad + first, s->grad_row,
                   s->grad_q);
    }
    if (p->rel_w.data) {
        long first = at * p->columns.reach * p->dim;
        for (long x = 0; x < width; ++x) {
            vec sum = {0};
            for (long y = 0; y < height; ++y) sum += s->s[y * width + x];
            s->grad_column[x] = sum;
        }
        terms_back(p, width, s->q, s->rel_w.value + first, s->rel_w.grad + first, s->grad_column,
                   s->grad_q);
    }
    write_queries(p, t, s->grad_q, p->dim, image, head, grad_q);
}

/* A band of tile rows of a plane: the output, or the gradients of queries to `out` and `g`. */
static void do_band(const problem *p, const derived *d, long image, long head, long first,
                    workspace *s, const target *out, const gradients *g) {
    const axis *rows = &p->rows, *columns = &p->columns;
    long last = smaller(first + p->band, rows->number), plane = image * p->heads + head;
    long top = rows->start[first], end = rows->start[last - 1] + rows->reach;
    long numbers = (end - top) * columns->positions;
    change_head(p, d, head, s, g);
    lay_out(p, &p->k, image, head, top, end, p->dim, d->wide, s->k);
    lay_out(p, &p->v, image, head, top, end, p->value_dim, d->value_wide, s->v);
    if (g) {
        memset(s->grad_k, 0, numbers * d->wide * sizeof(REAL));
        memset(s->grad_v, 0, numbers * d->value_wide * sizeof(REAL));
    }
    tile t;
    for (t.row = first; t.row < last; ++t.row)
        for (t.column = 0; t.column < columns->number; ++t.column) {
            t.shape = shape_of(p, rows->type[t.row], columns->type[t.column]);
            long at = (rows->start[t.row] - top + t.shape.top) * columns->positions +
                      columns->start[t.column] + t.shape.left;
            t.k = s->k + at * d->wide, t.v = s->v + at * d->value_wide;
            if (g) t.grad_k = s->grad_k + at * d->wide, t.grad_v = s->grad_v + at * d->value_wide;
            for (t.vector = 0; t.vector < t.shape.vectors; ++t.vector)
                if (g) differentiate(p, d, &t, image, head, s, out);
                else attend(p, d, &t, image, head, s, out);
        }
    if (g) {
        long keys = plane * p->key_rows * p->key_columns;
        add_back(p, s->grad_k, top, end, p->dim, d->wide, g->k + keys * p->dim);
        add_back(p, s->grad_v, top, end, p->value_dim, d->value_wide, g->v + keys * p->value_dim);
    }
}

static long numbers(const table *t) { return t->data ? t->heads * t->rows * t->columns : 0; }

/* Where a thread sums up gradients of tables: the first one in place, others in memory of their
 * own, so that the result does not depend on who is first. */
static gradients own_tables(const problem *p, const gradients *g, REAL *memory, long thread) {
    gradients own = *g;
    if (!thread) return own;
    long bias = numbers(&p->bias), rel_h = numbers(&p->rel_h), rel_w = numbers(&p->rel_w);
    own.bias = memory + (thread - 1) * (bias + rel_h + rel_w);
    own.rel_h = own.bias + bias, own.rel_w = own.rel_h + rel_h;
    return own;
}

static void add_tables(const problem *p, const gradients *g, REAL *memory, int threads) {
    for (int thread = 1; thread < threads; ++thread) {
        gradients own = own_tables(p, g, memory, thread);
        for (long i = 0; i < numbers(&p->bias); ++i) g->bias[i] += own.bias[i];
        for (long i = 0; i < numbers(&p->rel_h); ++i) g->rel_h[i] += own.rel_h[i];
        for (long i = 0; i < numbers(&p->rel_w); ++i) g->rel_w[i] += own.rel_w[i];
    }
}

static int run(const problem *p, const target *out, const gradients *g, int threads) {
    derived d = derive(p);
    int good = 1;
    size_t tables = numbers(&p->bias) + numbers(&p->rel_h) + numbers(&p->rel_w);
    REAL *memory = g ? calloc(tables * threads + 1, sizeof(REAL)) : NULL;
    if (g && !memory) return 0;
    long bands = (p->rows.number + p->band - 1) / p->band, planes = p->images * p->heads;
    /* threads may not add to the same keys: to every second band, or to maps of their own */
    long rounds = g ? 2 : 1, units = g && !p->parallel ? 1 : bands;
#pragma omp parallel num_threads(threads)
    {
        workspace s;
        gradients own, *to = NULL;
        int mine = allocate(&s, p, &d, g != NULL);
        if (!mine) good = 0;
        if (g) own = own_tables(p, g, memory, omp_get_thread_num()), to = &own;
        for (long round = 0; round < rounds; ++round) {
#pragma omp for schedule(static)
            for (long i = 0; i < planes * units; ++i) {
                long plane = i / units, band = i % units;
                if (!mine || (rounds > 1 && band % 2 != round)) continue;
                long many = units < bands ? bands : band + 1; /* all bands of a plane, or one */
                for (; band < many; ++band)
                    do_band(p, &d, plane % p->images, plane / p->images, band * p->band, &s, out,
                            to);
            }
        }
        if (mine) {
            change_head(p, &d, -1, &s, to);
            free(s.block);
        }
    }
    if (g) add_tables(p, g, memory, threads);
    free(memory);
    return good;
}

long lanes(void) { return LANES; }

/* Numbers of a bias that is laid out. */
long laid_out_numbers(const problem *p) {
    derived d = derive(p);
    return p->heads * vectors_of_types(p, &d) * d.keys * LANES;
}

/* Lay the bias out for all heads, by head, type of tile, vector of queries, position and query. */
void lay_out_bias(const problem *p, REAL *to) {
    derived d = derive(p);
    workspace s = {0};
    for (s.head = 0; s.head < p->heads; ++s.head) {
        s.bias = (vec *)to + s.head * vectors_of_types(p, &d) * d.keys;
        do_tables(p, &d, &s, NULL);
    }
}

/* Both return 0 where memory is missing. */
int forward(const problem *p, const target *out, int threads) { return run(p, out, NULL, threads); }

int backward(const problem *p, const gradients *g, int threads) {
    long pixel = p->dim, row = p->query_columns * pixel, plane = p->query_rows * row;
    target q = {g->q, p->heads * plane, plane, row, pixel};
    return run(p, &q, g, threads);
}
