// Segment sums of token gradients into the rows of the tokens: out[u] = sum of gradient[v] over the tokens v of row u; and
// the sums of the rows of each token.
//
// The (token, row) entries are sorted by row (counting sort), then each row is summed by one thread in the order of its tokens, so
// that the result does not depend on the number of threads.
//
// n tokens with J rows each, U rows, E width.

#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.h"

namespace {

constexpr int64_t MANY = 4096;  // entries that are worth a second thread
constexpr int64_t AHEAD = 4;     // tokens whose rows are asked for before they are needed
constexpr int64_t LATER = 16;    // gradients likewise; token_of is so much longer than its entries

template <int N>  // floats of a row at a time: they stay in registers
inline void sum_rows(float* out, const float* from, int64_t width, const int32_t* first, const int32_t* last) {
    float sum[N] = {};
    for (; first < last; ++first) {
        const float *g = from + *first * width, *later = from + first[LATER] * width;
        for (int d = 0; d < N; d += W) __builtin_prefetch(later + d);
#pragma GCC unroll 64
        for (int d = 0; d < N; ++d) sum[d] += g[d];
    }
    memcpy(out, sum, sizeof(sum));
}

struct Columns {  // the row of each token and column: column j's table begins at row starts[j]
    const float* rows;
    const int64_t *const *columns, *starts;
    int64_t each, tokens, width;
    const float* row(int64_t j, int64_t token) const { return rows + (starts[j] + columns[j][token]) * width; }
};

template <int V>  // vectors of a row at a time
inline void sum_columns(float* out, const Columns& from, int64_t token, int64_t first) {
    const int64_t next = token + AHEAD < from.tokens ? token + AHEAD : token;
    Lanes sum[V] = {};
    for (int64_t j = 0; j < from.each; ++j) {
        const float *row = from.row(j, token) + first, *later = from.row(j, next) + first;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            __builtin_prefetch(later + v * W);
            sum[v] += load(row + v * W);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + first + v * W, sum[v]);
}

// Each row's tokens are token_of[ends[u - 1]] to token_of[ends[u]].
void sum_all(const float* gradient, const int32_t* ends, const int32_t* token_of, int64_t rows, int64_t width, float* out,
             int threads, bool many) {
#pragma omp parallel for schedule(dynamic, 512) num_threads(threads) if (threads > 1 && many)
    for (int64_t u = 0; u < rows; ++u) {
        const int32_t *first = token_of + (u ? ends[u - 1] : 0), *last = token_of + ends[u];
        int64_t d = 0;
        for (; d + 64 <= width; d += 64) sum_rows<64>(out + u * width + d, gradient + d, width, first, last);
        for (; d + 16 <= width; d += 16) sum_rows<16>(out + u * width + d, gradient + d, width, first, last);
        for (; d < width; ++d) sum_rows<1>(out + u * width + d, gradient + d, width, first, last);
    }
}

}  // namespace

extern "C" void scatter_sum(const float* gradient, const int64_t* indices, int64_t tokens, int64_t each, int64_t rows,
                            int64_t width, float* out, int threads) {
    std::vector<int32_t> ends(rows + 1, 0), token_of(tokens * each + LATER);
    for (int64_t k = 0; k < tokens * each; ++k) ++ends[indices[k] + 1];
    for (int64_t u = 0; u < rows; ++u) ends[u + 1] += ends[u];
    int64_t k = 0;
    for (int64_t v = 0; v < tokens; ++v)
        for (int64_t j = 0; j < each; ++j) token_of[ends[indices[k++]]++] = int32_t(v);  // ends[u]: where row u ends
    sum_all(gradient, ends.data(), token_of.data(), rows, width, out, threads, tokens * each > MANY);
}

// The same where column j has rows of its own, starts[j] to starts[j + 1]: columns are sorted in parallel.
extern "C" void scatter_columns(const float* gradient, const int64_t* const* columns, const int64_t* starts,
                                int64_t each, int64_t tokens, int64_t width, float* out, int threads) {
    const int64_t rows = starts[each];
    std::vector<int32_t> ends(rows, 0), token_of(tokens * each + LATER);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && tokens * each > MANY)
    for (int64_t j = 0; j < each; ++j) {
        int32_t *own = ends.data() + starts[j], begin = int32_t(j * tokens);
        const int64_t* column = columns[j];
        for (int64_t v = 0; v < tokens; ++v) ++own[column[v]];
        for (int64_t u = 0; u < starts[j + 1] - starts[j]; ++u) {
            const int32_t count = own[u];
            own[u] = begin, begin += count;
        }
        for (int64_t v = 0; v < tokens; ++v) token_of[own[column[v]]++] = int32_t(v);
    }
    sum_all(gradient, ends.data(), token_of.data(), rows, width, out, threads, tokens * each > MANY);
}

// out[v] = sum over the columns j of rows[starts[j] + columns[j][v]].
extern "C" void gather_columns(const float* rows, const int64_t* const* columns, const int64_t* starts, int64_t each,
                               int64_t tokens, int64_t width, float* out, int threads) {
    const Columns from{rows, columns, starts, each, tokens, width};
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && tokens * each > MANY)
    for (int64_t v = 0; v < tokens; ++v) {
        float* to = out + v * width;
        int64_t d = 0;
        for (; d + 4 * W <= width; d += 4 * W) sum_columns<4>(to, from, v, d);
        for (; d + W <= width; d += W) sum_columns<1>(to, from, v, d);
        for (; d < width; ++d) {
            to[d] = 0;
            for (int64_t j = 0; j < each; ++j) to[d] += from.row(j, v)[d];
        }
    }
}
