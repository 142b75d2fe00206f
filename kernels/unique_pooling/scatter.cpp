// Sums of token gradients into the rows that the tokens used: out[u] = sum of gradient[v] where token v used u.
//
// The uses are sorted by row (counting), then each row is summed by one thread in the order of its tokens, so
// that the result does not depend on the number of threads.
//
// n tokens with J uses each, U rows, E width.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

template <int N>  // floats of a row at a time: they stay in registers
inline void sum_rows(float* out, const float* from, int64_t width, const int32_t* first, const int32_t* last) {
    float sum[N] = {};
    for (; first < last; ++first) {
        const float* g = from + *first * width;
#pragma GCC unroll 64
        for (int d = 0; d < N; ++d) sum[d] += g[d];
    }
    memcpy(out, sum, sizeof(sum));
}

}  // namespace

extern "C" void scatter_sum(const float* gradient, const int64_t* indices, int64_t tokens, int64_t each, int64_t rows,
                            int64_t width, float* out, int threads) {
    std::vector<int32_t> ends(rows + 1, 0), owners(tokens * each);
    for (int64_t k = 0; k < tokens * each; ++k) ++ends[indices[k] + 1];
    for (int64_t u = 0; u < rows; ++u) ends[u + 1] += ends[u];
    int64_t k = 0;
    for (int64_t v = 0; v < tokens; ++v)
        for (int64_t j = 0; j < each; ++j) owners[ends[indices[k++]]++] = int32_t(v);  // ends[u]: where u's uses end
#pragma omp parallel for schedule(dynamic, 512) num_threads(threads) if (threads > 1 && tokens * each > 4096)
    for (int64_t u = 0; u < rows; ++u) {
        const int32_t *first = owners.data() + (u ? ends[u - 1] : 0), *last = owners.data() + ends[u];
        int64_t d = 0;
        for (; d + 64 <= width; d += 64) sum_rows<64>(out + u * width + d, gradient + d, width, first, last);
        for (; d + 16 <= width; d += 16) sum_rows<16>(out + u * width + d, gradient + d, width, first, last);
        for (; d < width; ++d) sum_rows<1>(out + u * width + d, gradient + d, width, first, last);
    }
}
