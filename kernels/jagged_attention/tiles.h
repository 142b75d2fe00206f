// What attention does with one tile, G queries of D values and W keys: transposed, multiplied, summed in registers.

#pragma once

#include <cstring>

#include "lanes.h"

#define ALWAYS __attribute__((always_inline))

namespace {

struct Rows {  // of one head: row i begins at start + i * stride
    float* start;
    int64_t stride;
    float* operator[](int64_t i) const { return start + i * stride; }
};

inline float max_of(Lanes x) {
    for (int step = W / 2; step; step /= 2) {
        const Lanes other = __builtin_shuffle(x, IOTA ^ step);
        x = other > x ? other : x;
    }
    return x[0];
}

// to[d * W + j] = from[j][d] of up to W rows; zeros where there is no row.
template <int D>
ALWAYS inline void transpose(float* to, Rows from, int64_t first, int rows) {
    if (D % W == 0 && rows == W) {
        for (int chunk = 0; chunk < D; chunk += W) {
            Lanes r[W];
#pragma GCC unroll 16
            for (int j = 0; j < W; ++j) r[j] = load(from[first + j] + chunk);
#define STAGE(s)                                                                                  \
    {                                                                                             \
        const Ints low = (IOTA & s) == 0 ? IOTA : (IOTA ^ s) + W;                                 \
        const Ints high = (IOTA & s) == 0 ? IOTA ^ s : IOTA + W;                                  \
        _Pragma("GCC unroll 16") for (int j = 0; j < W; ++j) if (!(j & s)) {                      \
            Lanes a = r[j], b = r[j | s];                                                         \
            r[j] = __builtin_shuffle(a, b, low);                                                  \
            r[j | s] = __builtin_shuffle(a, b, high);                                             \
        }                                                                                         \
    }
            STAGE(1) STAGE(2) STAGE(4) STAGE(8)
#undef STAGE
#pragma GCC unroll 16
            for (int j = 0; j < W; ++j) store(to + (chunk + j) * W, r[j]);
        }
        return;
    }
    if (rows < W) memset(to, 0, sizeof(float) * D * W);
    for (int j = 0; j < rows; ++j)
        for (int d = 0; d < D; ++d) to[d * W + j] = from[first + j][d];
}

// Scores of G queries (rows of `a`, D wide) with the W rows that `b` holds transposed.
template <int D, int G>
ALWAYS inline void products(Lanes* s, const float* a, const float* b) {
#pragma GCC unroll 10
    for (int g = 0; g < G; ++g) s[g] = Lanes{};
    for (int d = 0; d < D; ++d) {
        Lanes column = load(b + d * W);
#pragma GCC unroll 10
        for (int g = 0; g < G; ++g) s[g] += a[g * D + d] * column;
    }
}

template <int D>
struct Vector {  // D floats in pieces of the vector's width, or of D where that is less
    static constexpr int N = D < W ? D : W;
    typedef float Piece __attribute__((vector_size(4 * N), aligned(4), may_alias));
    static Piece load(const float* p) { return *reinterpret_cast<const Piece*>(p); }
    static void store(float* p, Piece x) { *reinterpret_cast<Piece*>(p) = x; }
};

// to (G, D) += weights (G, rows; row stride `wide`) times the rows of `from`.
template <int D, int G>
ALWAYS inline void add_weighted(float* to, const float* weights, int64_t wide, Rows from, int64_t first, int rows) {
    typedef Vector<D> V;
    for (int c = 0; c < D; c += V::N) {
        typename V::Piece sum[G];
#pragma GCC unroll 10
        for (int g = 0; g < G; ++g) sum[g] = V::load(to + g * D + c);
        for (int j = 0; j < rows; ++j) {
            typename V::Piece row = V::load(from[first + j] + c);
#pragma GCC unroll 10
            for (int g = 0; g < G; ++g) sum[g] += weights[g * wide + j] * row;
        }
#pragma GCC unroll 10
        for (int g = 0; g < G; ++g) V::store(to + g * D + c, sum[g]);
    }
}

// to (W, D) += the transpose of weights (n, W) times rows (n, D). The loops are those of add_weighted with the two
// indices of the weights exchanged; one template for both would hide which of them is summed.
template <int D>
ALWAYS inline void add_transposed(float* to, const float* weights, const float* rows, int n) {
    typedef Vector<D> V;
    for (int c = 0; c < D; c += V::N) {
        typename V::Piece sum[W];
#pragma GCC unroll 16
        for (int j = 0; j < W; ++j) sum[j] = V::load(to + j * D + c);
        for (int i = 0; i < n; ++i) {
            typename V::Piece row = V::load(rows + i * D + c);
#pragma GCC unroll 16
            for (int j = 0; j < W; ++j) sum[j] += weights[i * W + j] * row;
        }
#pragma GCC unroll 16
        for (int j = 0; j < W; ++j) V::store(to + j * D + c, sum[j]);
    }
}

}  // namespace
