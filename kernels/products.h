// Products of small matrices that lie in the cache: blocks of the result are summed in registers.

#pragma once

#include "lanes.h"

namespace {

#ifdef __AVX512F__
constexpr int HIGH = 6, WIDE = 4;  // rows and vectors of a block
#else
constexpr int HIGH = 3, WIDE = 2;
#endif
constexpr int PANEL = WIDE * W;  // columns of a panel
constexpr int DEPTH = 128;       // of a product at a time: so much of a panel stays in the nearest cache

struct Panels {  // a matrix (depth, columns): panel p from start + p * step, its rows `stride` apart
    const float* start;
    int64_t step, stride;
};

// A matrix (depth, columns), w[k, n] at w + k * wk + n * wn, put into panels; zeros behind its columns.
inline Panels pack(float*& place, const float* w, int64_t depth, int64_t columns, int64_t wk, int64_t wn) {
    const Panels made{place, depth * PANEL, PANEL};
    const int64_t padded = (columns + PANEL - 1) / PANEL * PANEL;
    for (int64_t n = 0; n < padded; ++n)
        for (int64_t k = 0; k < depth; ++k)
            place[n / PANEL * made.step + k * PANEL + n % PANEL] = n < columns ? w[k * wk + n * wn] : 0.0f;
    place += depth * padded;
    return made;
}

template <int M, int V>
inline void block(int64_t depth, const float* a, int64_t am, int64_t ak, const float* b, int64_t bk, float* c,
                  int64_t cm) {
    Lanes sum[M][V];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[m][v] = load(c + m * cm + v * W);
    for (int64_t k = 0; k < depth; ++k, a += ak, b += bk) {
        Lanes row[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) row[v] = load(b + v * W);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const Lanes value = splat(a[m * am]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[m][v] += value * row[v];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(c + m * cm + v * W, sum[m][v]);
}

template <int V>
inline void column(int64_t rows, int64_t depth, const float* a, int64_t am, int64_t ak, const float* b, int64_t bk,
                   float* c, int64_t cm) {
    int64_t m = 0;
    for (; m + HIGH <= rows; m += HIGH) block<HIGH, V>(depth, a + m * am, am, ak, b, bk, c + m * cm, cm);
    for (; m < rows; ++m) block<1, V>(depth, a + m * am, am, ak, b, bk, c + m * cm, cm);
}

// c (rows, columns) += a (rows, depth) times b (depth, columns); a[m, k] at a + m * am + k * ak. Whole vectors of
// columns. Each value is summed in the order of k, whatever the number of rows.
inline void multiply(int64_t rows, int64_t depth, int64_t columns, const float* a, int64_t am, int64_t ak, Panels b,
                     float* c, int64_t cm) {
    for (int64_t k = 0; k < depth; k += DEPTH) {
        const int64_t deep = depth - k < DEPTH ? depth - k : DEPTH;
        const float *from = a + k * ak, *panel = b.start + k * b.stride;
        for (int64_t n = 0; n < columns; n += PANEL, panel += b.step) {
            switch (columns - n < PANEL ? (columns - n) / W : WIDE) {
                case 1: column<1>(rows, deep, from, am, ak, panel, b.stride, c + n, cm); break;
                case 2: column<2>(rows, deep, from, am, ak, panel, b.stride, c + n, cm); break;
                case 3: column<(WIDE < 3 ? WIDE : 3)>(rows, deep, from, am, ak, panel, b.stride, c + n, cm); break;
                default: column<WIDE>(rows, deep, from, am, ak, panel, b.stride, c + n, cm);
            }
        }
    }
}

}  // namespace
