// Attention of packed queries over packed keys, forward and backward, float32, on a CPU.
//
//   request r, head h:   S = Q K^T * scale   P = exp(S - lse)   O = P V          lse = log sum exp S
//                        dP = dO V^T         dS = P (dP - (dO . O) + dlse)
//                        dQ = dS K * scale   dK = dS^T Q * scale   dV = P^T dO
//
// The tiles of flash attention (Dao et al., arXiv 2205.14135): no score is written to memory. A head of a request
// is one thread's, so that every result is summed in one order, whatever the number of threads.
// Sixteen keys stand side by side in a vector; GCC's vector extensions make of it what the processor has.
//
// N queries and L keys of one request, D width of a head.

#include "tiles.h"

namespace {

constexpr int CHUNK = 512;  // keys whose scores the forward holds at a time
constexpr int WIDE = CHUNK + W;  // floats from one query's scores to the next's: not a multiple of a page
constexpr int TILE = 8;     // groups of queries whose scores the backward holds at a time
constexpr int64_t REACH = 512 << 10;  // bytes of the next request that are asked for ahead: half a small L2
constexpr float NOTHING = -INFINITY;

struct Problem {
    Rows q, k, v, out, d_out, dq, dk, dv;
    const int64_t *q_ends, *k_ends, *visible;
    float* lse;            // (N, H)
    const float* d_lse;    // (N, H) or null
    int64_t requests;
    int heads;
    float scale;
};

struct Head {  // one head of one request
    Rows q, k, v, out, d_out, dq, dk, dv;
    const int64_t* visible;
    float* lse;
    const float* d_lse;
    int64_t n, l;
    int heads;
    float scale;
    int64_t seen(int64_t query) const {
        if (!visible || visible[query] >= l) return l;
        return visible[query] < 0 ? 0 : visible[query];
    }
};

inline Head head_of(const Problem& p, int64_t r, int h, int width) {
    auto at = [&](Rows rows, int64_t first) {
        return Rows{rows.start ? rows.start + first * rows.stride + h * width : nullptr, rows.stride};
    };
    const int64_t q0 = p.q_ends[r], k0 = p.k_ends[r];
    return Head{at(p.q, q0), at(p.k, k0), at(p.v, k0), at(p.out, q0), at(p.d_out, q0), at(p.dq, q0),
                at(p.dk, k0), at(p.dv, k0), p.visible ? p.visible + q0 : nullptr, p.lse + q0 * p.heads + h,
                p.d_lse ? p.d_lse + q0 * p.heads + h : nullptr, p.q_ends[r + 1] - q0, p.k_ends[r + 1] - k0,
                p.heads, p.scale};
}

// Rows of the next request, asked for while this one is computed: a head's rows lie far apart, and memory that is
// waited for costs more than the sums.
struct Ahead {
    Rows arrays[4];
    int count, bytes;  // arrays to read or write; of a row in each
    int64_t row = 0, end = 0, each = 0;
    void some() {
        for (const int64_t stop = row + each < end ? row + each : end; row < stop; ++row)
            for (int a = 0; a < count; ++a)
                for (int b = 0; b < bytes; b += 64)
                    __builtin_prefetch(reinterpret_cast<const char*>(arrays[a][row]) + b, 0, 2);
    }
};

template <int D>
void copy_rows(float* to, Rows from, int64_t n, int64_t padded, float scale) {
    for (int64_t i = 0; i < n; ++i)
        for (int d = 0; d < D; ++d) to[i * D + d] = from[i][d] * scale;
    memset(to + n * D, 0, sizeof(float) * (padded - n) * D);
}

template <int D, int G>
void forward_head(const Head& t, Scratch& scratch, Ahead& ahead) {
    const int64_t padded = (t.n + G - 1) / G * G, blocks = (t.l + W - 1) / W;
    float* keys = scratch.of((2 * blocks * W + padded) * D + G * WIDE + G * D);
    float *values = keys + blocks * W * D, *queries = values + blocks * W * D, *scores = queries + padded * D, *sums = scores + G * WIDE;
    for (int64_t b = 0; b < blocks; ++b)
        transpose<D>(keys + b * W * D, t.k, b * W, int(t.l - b * W < W ? t.l - b * W : W));
    copy_rows<D>(values, t.v, t.l, t.l, 1.0f);  // side by side: rows far apart share few places of the cache
    copy_rows<D>(queries, t.q, t.n, padded, t.scale);
    for (int64_t first = 0; first < t.n; first += G) {
        int64_t seen[G], most = 0, least = t.l;
        float top[G], total[G];
        for (int g = 0; g < G; ++g) {
            seen[g] = first + g < t.n ? t.seen(first + g) : t.l;
            if (first + g < t.n && seen[g] > most) most = seen[g];
            if (seen[g] < least) least = seen[g];
            top[g] = NOTHING, total[g] = 0;
        }
        memset(sums, 0, sizeof(float) * G * D);
        for (int64_t begin = 0; begin < most; begin += CHUNK) {
            const int64_t end = begin + CHUNK < most ? begin + CHUNK : most;
            Lanes high[G], weight[G];
            for (int g = 0; g < G; ++g) high[g] = splat(NOTHING), weight[g] = Lanes{};
            for (int64_t key = begin; key < end; key += W) {
                Lanes s[G];
                ahead.some();
                products<D, G>(s, queries + first * D, keys + key * D);
                if (key + W > least)
                    for (int g = 0; g < G; ++g) s[g] = IOTA + int32_t(key) < int32_t(seen[g]) ? s[g] : splat(NOTHING);
#pragma GCC unroll 10
                for (int g = 0; g < G; ++g) {
                    high[g] = high[g] > s[g] ? high[g] : s[g];
                    store(scores + g * WIDE + key - begin, s[g]);
                }
            }
            for (int g = 0; g < G; ++g) {
                const float before = top[g], found = max_of(high[g]);
                if (found > before) top[g] = found;
                if (before != NOTHING && found > before) {
                    const float shrink = std::exp(before - top[g]);
                    total[g] *= shrink;
                    for (int d = 0; d < D; ++d) sums[g * D + d] *= shrink;
                }
                const Lanes base = splat(top[g] == NOTHING ? 0.0f : top[g]);
                float* own = scores + g * WIDE;
                for (int64_t j = 0; j < end - begin; j += W) {
                    Lanes e = exp_lanes(load(own + j) - base);
                    store(own + j, e);
                    weight[g] += e;
                }
                total[g] += sum_of(weight[g]);
            }
            add_weighted<D, G>(sums, scores, WIDE, Rows{values, D}, begin, int(end - begin));
        }
        for (int g = 0; g < G && first + g < t.n; ++g) {
            const bool blind = total[g] == 0;  // NaN is not: it must show
            const float share = blind ? 0 : 1 / total[g];
            for (int d = 0; d < D; ++d) t.out[first + g][d] = sums[g * D + d] * share;
            t.lse[(first + g) * t.heads] = blind ? NOTHING : top[g] + std::log(total[g]);
        }
    }
}

template <int D, int G>
void backward_head(const Head& t, Scratch& scratch, Ahead& ahead) {
    const int64_t padded = (t.n + G - 1) / G * G;
    float* queries = scratch.of(padded * (3 * D + 2) + 2 * TILE * G * W + 4 * W * D);
    float *asked = queries + padded * D, *dq = asked + padded * D, *lse = dq + padded * D;
    float *own = lse + padded, *p = own + padded, *ds = p + TILE * G * W;
    float *keys = ds + TILE * G * W, *values = keys + W * D, *dk = values + W * D, *dv = dk + W * D;
    copy_rows<D>(queries, t.q, t.n, padded, t.scale);
    copy_rows<D>(asked, t.d_out, t.n, padded, 1.0f);
    memset(dq, 0, sizeof(float) * padded * D);
    for (int64_t i = 0; i < padded; ++i) {
        float dot = 0;
        const bool real = i < t.n && t.lse[i * t.heads] != NOTHING;
        for (int d = 0; real && d < D; ++d) dot += t.d_out[i][d] * t.out[i][d];
        own[i] = real && t.d_lse ? dot - t.d_lse[i * t.heads] : dot;
        lse[i] = real ? t.lse[i * t.heads] : INFINITY;
    }
    for (int64_t key = 0; key < t.l; key += W) {
        const int rows = int(t.l - key < W ? t.l - key : W);
        ahead.some();
        transpose<D>(keys, t.k, key, rows);
        transpose<D>(values, t.v, key, rows);
        memset(dk, 0, sizeof(float) * 2 * W * D);
        for (int64_t tile = 0; tile < padded; tile += TILE * G) {
            const int n = int(padded - tile < TILE * G ? padded - tile : TILE * G);
            for (int i = 0; i < n; i += G) {
                Lanes s[G], dp[G];
                products<D, G>(s, queries + (tile + i) * D, keys);
                products<D, G>(dp, asked + (tile + i) * D, values);
#pragma GCC unroll 10
                for (int g = 0; g < G; ++g) {
                    const int64_t query = tile + i + g;
                    Lanes e = exp_lanes(s[g] - lse[query]);
                    if (rows < W || t.visible) {
                        const int64_t limit = query < t.n ? t.seen(query) : 0;
                        e = IOTA + int32_t(key) < int32_t(limit) ? e : splat(0.0f);
                    }
                    store(p + (i + g) * W, e);
                    store(ds + (i + g) * W, e * (dp[g] - own[query]));
                }
            }
            add_transposed<D>(dv, p, asked + tile * D, n);
            add_transposed<D>(dk, ds, queries + tile * D, n);
            for (int i = 0; i < n; i += G)
                add_weighted<D, G>(dq + (tile + i) * D, ds + i * W, W, t.k, key, rows);
        }
        for (int j = 0; j < rows; ++j) {
            memcpy(t.dk[key + j], dk + j * D, sizeof(float) * D);
            memcpy(t.dv[key + j], dv + j * D, sizeof(float) * D);
        }
    }
    for (int64_t i = 0; i < t.n; ++i)
        for (int d = 0; d < D; ++d) t.dq[i][d] = dq[i * D + d] * t.scale;
}

template <int D, int G>
void one(const Problem& p, bool backward, int64_t r, int first, int last, int64_t next, Scratch& scratch) {
    Ahead ahead{{p.k, p.v, p.dk, p.dv}, backward ? 4 : 2, int(sizeof(float)) * D * p.heads};
    const int64_t n = p.q_ends[r + 1] - p.q_ends[r], l = p.k_ends[r + 1] - p.k_ends[r];
    const int64_t calls = (last - first) * ((l + W - 1) / W) * (backward ? 1 : (n + G - 1) / G);
    if (next < p.requests && calls) {
        const int64_t rows = p.k_ends[next + 1] - p.k_ends[next], most = REACH / (ahead.count * ahead.bytes);
        ahead.row = p.k_ends[next], ahead.end = ahead.row + (rows < most ? rows : most);
        ahead.each = (ahead.end - ahead.row + calls - 1) / calls;
    }
    for (int h = first; h < last; ++h) {
        const Head t = head_of(p, r, h, D);
        backward ? backward_head<D, G>(t, scratch, ahead) : forward_head<D, G>(t, scratch, ahead);
    }
}

template <int D>
void run(const Problem& p, bool backward, int threads) {
    // A task is a request, or one of its heads where there are few; either way a head is one thread's.
    const int each = p.requests < 4 * threads ? 1 : p.heads, parts = p.heads / each;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Scratch scratch;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < p.requests * parts; ++task) {
            const int64_t r = task / parts, n = p.q_ends[r + 1] - p.q_ends[r];
            const int first = int(task % parts) * each;
            const int64_t next = each == p.heads ? r + threads : p.requests;  // most likely this thread's
            if (n <= 2)
                one<D, 2>(p, backward, r, first, first + each, next, scratch);
            else if ((n + 9) / 10 * 10 < (n + 7) / 8 * 8)  // 50 are 7 times 8 or 5 times 10
                one<D, 10>(p, backward, r, first, first + each, next, scratch);
            else
                one<D, 8>(p, backward, r, first, first + each, next, scratch);
        }
    }
}

}  // namespace

extern "C" void jagged_attention(const Problem* p, int backward, int threads) { run<WIDTH>(*p, backward, threads); }
