/* Vectors of numbers that the processor handles at once, for REAL = float or double. */
#include <math.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES ((long)(BYTES / sizeof(REAL)))
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

INLINE long round_up(long n) { return (n + LANES - 1) / LANES * LANES; }

INLINE long smaller(long a, long b) { return a < b ? a : b; }

INLINE REAL lane_sum(vec value) {
    REAL sum = 0;
    for (long lane = 0; lane < LANES; ++lane) sum += value[lane];
    return sum;
}

INLINE vec larger(vec a, vec b) {
    bits first = a > b;
    return (vec)(((bits)a & first) | ((bits)b & ~first));
}

/* e^x for x <= 0 */
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
