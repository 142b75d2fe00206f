// The touched rows of a table, updated by row-wise Adagrad, each row read and written once.
//
//   h <- h + mean(g^2)        w <- keep * w - lr * g / (sqrt(h) + eps)
//
// Rows lie anywhere in a large table, so each is asked for some rows before its turn.
// n touched rows, none twice; E their width.

#include <cmath>
#include <cstdint>

namespace {

inline void ask_for(const float* row, int64_t width) {
    for (int64_t d = 0; d < width; d += 16) __builtin_prefetch(row + d, 1);
}

constexpr int64_t AHEAD = 8;  // rows
constexpr int64_t FEW = 4096;  // rows that are not worth a second thread

}  // namespace

extern "C" void rowwise_adagrad(float* weight, float* sum, const int64_t* ids, const float* gradient, int64_t n,
                                int64_t width, float lr, float eps, float keep, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n > FEW)
    for (int64_t i = 0; i < n; ++i) {
        if (i + AHEAD < n) ask_for(weight + ids[i + AHEAD] * width, width);
        const float* g = gradient + i * width;
        float* w = weight + ids[i] * width;
        float square = 0;
#pragma omp simd reduction(+ : square)
        for (int64_t d = 0; d < width; ++d) square += g[d] * g[d];
        const float total = sum[ids[i]] += square / float(width);
        const float scale = lr / (std::sqrt(total) + eps);
#pragma omp simd
        for (int64_t d = 0; d < width; ++d) w[d] = keep * w[d] - scale * g[d];
    }
}
