// Linear maps and feed-forward networks on the rows of x, with the norm before them and the residual around them,
// forward and backward, float32, on a CPU.
//
//   n = norm(x)     y = n W1^T + b1                          plain
//                   y = act(n W1^T + b1) W2^T + b2           gelu, or swiglu: act([g, u]) = silu(g) u
//                   y += x                                   where there is a residual
//
// A tile of rows goes through all of it before the next one: n, the hidden values and their gradients stay in the
// cache, and the backward computes them again. Weights' gradients are summed in pieces of the rows, then over the
// pieces, so that no result depends on the number of threads.
//
// I inputs, H hidden values (2 H before swiglu), O outputs, U = I, H or 2 H columns that W1 gives.

#include <cstring>

#include "activations.h"
#include "products.h"

namespace {

constexpr int TILE = 72;         // rows
constexpr int PIECES = 16;       // of the rows, for the sums of weights' gradients
constexpr int LEAST = 2;         // tiles of a piece: its sums must be cleared and added
constexpr int PLAIN = 0, GELU = 1, SWIGLU = 2;
constexpr int NONE = 0, LAYER = 1;  // and 2: rms

struct Problem {
    const float *x, *gain, *shift, *w1, *b1, *w2, *b2, *dy;
    float *y, *dx, *d_gain, *d_shift, *d_w1, *d_b1, *d_w2, *d_b2;
    int64_t rows, inputs, hidden, outputs;
    float eps;
    int norm, act, residual;
};

inline int64_t up(int64_t n) { return (n + W - 1) / W * W; }

struct Plan {  // what all tiles share
    const Problem& p;
    int64_t I, H, U, O, h, S;  // h: H filled up to whole vectors; S: floats from one tile's row of U to the next
    float *made, *bias;
    Panels w1_t, w2_t, w1, w2;

    explicit Plan(const Problem& problem, bool backward) : p(problem) {
        I = p.inputs, O = p.outputs, H = p.hidden, h = up(H);
        U = p.act == PLAIN ? O : p.act == GELU ? h : 2 * h;
        S = U + W;  // rows a power of two apart would share few places of the cache
        const int64_t wide = U + PANEL, second = p.act == PLAIN ? 0 : (h + O + 2 * PANEL) * (h + O);
        made = static_cast<float*>(
            aligned_alloc(64, sizeof(float) * up(U + U * I + wide * I + U * (I + PANEL) + second)));
        bias = made;
        float *whole = bias + up(U), *place = whole + U * I;
        spread(bias, p.b1, 1);
        spread(whole, p.w1, I);
        w1_t = pack(place, whole, I, U, 1, I);
        if (p.act != PLAIN) w2_t = pack(place, p.w2, H, O, 1, H);
        if (!backward) return;
        w1 = pack(place, whole, U, I, I, 1);
        if (p.act != PLAIN) w2 = pack(place, p.w2, O, H, H, 1);
    }
    ~Plan() { free(made); }
    Plan(const Plan&) = delete;

    // Rows of W1 (or its bias) with zeros behind each half; and back.
    int64_t halves() const { return p.act == SWIGLU ? 2 : 1; }
    int64_t given() const { return p.act == PLAIN ? O : H; }
    void spread(float* to, const float* from, int64_t wide) const {
        memset(to, 0, sizeof(float) * U * wide);
        for (int64_t i = 0; from && i < halves(); ++i)
            memcpy(to + i * h * wide, from + i * given() * wide, sizeof(float) * given() * wide);
    }
    void gather(float* to, const float* from, int64_t wide) const {
        for (int64_t i = 0; to && i < halves(); ++i)
            memcpy(to + i * given() * wide, from + i * h * wide, sizeof(float) * given() * wide);
    }
};

struct Statistics {  // of a row, for its norm: (x - middle) * scale
    float middle, scale;
};

inline Statistics statistics(const float* x, int64_t wide, int norm, float eps) {
    Lanes sum{}, square{};
    if (norm == LAYER)
        for (int64_t i = 0; i < wide; i += W) sum += load(x + i);
    const float middle = sum_of(sum) / wide;
    for (int64_t i = 0; i < wide; i += W) {
        const Lanes off = load(x + i) - middle;
        square += off * off;
    }
    return {middle, 1 / std::sqrt(sum_of(square) / wide + eps)};
}

// norm(x) of a tile; x itself where there is no norm.
const float* normed(const Problem& p, const float* x, int64_t rows, float* to, Statistics* found) {
    if (p.norm == NONE) return x;
    const int64_t I = p.inputs;
    for (int64_t r = 0; r < rows; ++r) {
        const Statistics s = found[r] = statistics(x + r * I, I, p.norm, p.eps);
        for (int64_t i = 0; i < I; i += W) {
            const Lanes value = (load(x + r * I + i) - s.middle) * s.scale * load(p.gain + i);
            store(to + r * I + i, p.shift ? value + load(p.shift + i) : value);
        }
    }
    return to;
}

// dx of a tile from dn, the gradient of norm(x); also of gain and shift.
void norm_backward(const Problem& p, const float* x, const float* dn, const float* dy, int64_t rows,
                   const Statistics* found, float* dx, float* d_gain, float* d_shift) {
    const int64_t I = p.inputs;
    for (int64_t r = 0; r < rows; ++r, x += I, dn += I) {
        const Statistics s = found[r];
        Lanes sum{}, dot{};
        for (int64_t i = 0; i < I; i += W) {
            const Lanes unit = (load(x + i) - s.middle) * s.scale, d = load(dn + i), g = d * load(p.gain + i);
            store(d_gain + i, load(d_gain + i) + d * unit);
            store(d_shift + i, load(d_shift + i) + d);
            sum += g, dot += g * unit;
        }
        if (!dx) continue;
        const float mean = p.norm == LAYER ? sum_of(sum) / I : 0, along = sum_of(dot) / I;
        for (int64_t i = 0; i < I; i += W) {
            const Lanes unit = (load(x + i) - s.middle) * s.scale, g = load(dn + i) * load(p.gain + i);
            const Lanes d = s.scale * (g - mean - unit * along);
            store(dx + r * I + i, p.residual ? d + load(dy + r * I + i) : d);
        }
    }
}

// Hidden values (rows, h) of W1's columns; with d, the gradient of the hidden values, also that of the columns.
void activate(const Plan& plan, float* u, int64_t rows, float* hidden, const float* d) {
    const int64_t h = plan.h, wide = h + W;
    for (int64_t r = 0; r < rows; ++r, u += plan.S, hidden += wide) {
        for (int64_t i = 0; i < h; i += W) {
            if (plan.p.act == GELU) {
                const Gelu gelu(load(u + i));
                store(hidden + i, gelu.value);
                if (d) store(u + i, load(d + r * wide + i) * gelu.slope);
                continue;
            }
            const Lanes gate = load(u + i), up = load(u + h + i), open = sigmoid(gate), silu = gate * open;
            store(hidden + i, silu * up);
            if (!d) continue;
            const Lanes of = load(d + r * wide + i);
            store(u + i, of * up * (open + silu * (1.0f - open)));
            store(u + h + i, of * silu);
        }
    }
}

// Rows that a product is added to: the bias (or zeros), and x where there is a residual.
void begin(float* to, int64_t rows, int64_t wide, int64_t stride, const float* bias, const float* x) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < wide; i += W) {
            const Lanes first = bias ? load(bias + i) : Lanes{};
            store(to + r * stride + i, x ? first + load(x + r * wide + i) : first);
        }
}

void forward_tile(const Plan& plan, int64_t first, int64_t rows, Scratch& scratch) {
    const Problem& p = plan.p;
    const int64_t I = plan.I, O = plan.O, wide = plan.h + W;
    float *n = scratch.of(TILE * (I + plan.S + wide)), *u = n + TILE * I, *hidden = u + TILE * plan.S;
    Statistics found[TILE];
    const float *x = p.x + first * I, *from = normed(p, x, rows, n, found);
    float* y = p.y + first * O;
    begin(y, rows, O, O, p.act == PLAIN ? p.b1 : p.b2, p.residual ? x : nullptr);
    if (p.act == PLAIN) return multiply(rows, I, O, from, I, 1, plan.w1_t, y, O);
    begin(u, rows, plan.U, plan.S, plan.bias, nullptr);
    multiply(rows, I, plan.U, from, I, 1, plan.w1_t, u, plan.S);
    activate(plan, u, rows, hidden, nullptr);
    multiply(rows, plan.H, O, hidden, wide, 1, plan.w2_t, y, O);
}

struct Sums {  // of weights' gradients over a piece of the rows, one behind the other
    float *dw1, *dw2_t, *db1, *db2, *d_gain, *d_shift;
    static int64_t size(const Plan& plan) { return plan.U * (plan.I + 1) + plan.h * plan.O + plan.O + 2 * plan.I; }
    Sums(const Plan& plan, float* at) {
        dw1 = at, dw2_t = dw1 + plan.U * plan.I, db1 = dw2_t + plan.h * plan.O, db2 = db1 + plan.U;
        d_gain = db2 + plan.O, d_shift = d_gain + plan.I;
    }
};

void add_rows(float* to, const float* from, int64_t rows, int64_t wide, int64_t stride) {
    for (int64_t i = 0; i < wide; i += W) {
        Lanes sum = load(to + i);
        for (int64_t r = 0; r < rows; ++r) sum += load(from + r * stride + i);
        store(to + i, sum);
    }
}

void backward_tile(const Plan& plan, int64_t first, int64_t rows, Scratch& scratch, const Sums& sums) {
    const Problem& p = plan.p;
    const int64_t I = plan.I, O = plan.O, h = plan.h, wide = h + W;
    float *n = scratch.of(TILE * (2 * I + plan.S + 2 * wide)), *dn = n + TILE * I, *u = dn + TILE * I;
    float *hidden = u + TILE * plan.S, *d_hidden = hidden + TILE * wide;
    Statistics found[TILE];
    const float *x = p.x + first * I, *dy = p.dy + first * O, *from = normed(p, x, rows, n, found), *du = dy;
    int64_t step = O;
    if (p.act != PLAIN) {
        begin(u, rows, plan.U, plan.S, plan.bias, nullptr);
        multiply(rows, I, plan.U, from, I, 1, plan.w1_t, u, plan.S);
        begin(d_hidden, rows, h, wide, nullptr, nullptr);
        multiply(rows, O, h, dy, O, 1, plan.w2, d_hidden, wide);
        activate(plan, u, rows, hidden, d_hidden);
        multiply(h, rows, O, hidden, 1, wide, Panels{dy, PANEL, O}, sums.dw2_t, O);
        if (p.d_b2) add_rows(sums.db2, dy, rows, O, O);
        du = u, step = plan.S;
    }
    multiply(plan.U, rows, I, du, 1, step, Panels{from, PANEL, I}, sums.dw1, I);
    if (p.d_b1) add_rows(sums.db1, du, rows, plan.U, step);
    if (p.norm == NONE && !p.dx) return;
    float* dx = p.dx ? p.dx + first * I : nullptr;
    float* into = p.norm == NONE ? dx : dn;
    begin(into, rows, I, I, nullptr, p.norm == NONE && p.residual ? dy : nullptr);
    multiply(rows, plan.U, I, du, step, 1, plan.w1, into, I);
    if (p.norm != NONE) norm_backward(p, x, dn, dy, rows, found, dx, sums.d_gain, sums.d_shift);
}

void forward(const Problem& p, int threads) {
    const Plan plan(p, false);
    const int64_t tiles = (p.rows + TILE - 1) / TILE;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Scratch scratch;
#pragma omp for schedule(dynamic, 1)
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t first = tile * TILE;
            forward_tile(plan, first, p.rows - first < TILE ? p.rows - first : TILE, scratch);
        }
    }
}

void backward(const Problem& p, int threads) {
    const Plan plan(p, true);
    const int64_t tiles = (p.rows + TILE - 1) / TILE, each = tiles > LEAST * PIECES ? (tiles + PIECES - 1) / PIECES : LEAST;
    const int64_t pieces = (tiles + each - 1) / each, size = Sums::size(plan);
    Scratch held;
    float* all = held.of((pieces + 1) * size);
    memset(all, 0, sizeof(float) * size);  // stays so where there is no row
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Scratch scratch;
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < pieces; ++piece) {
            float* own = all + (piece + 1) * size;
            memset(own, 0, sizeof(float) * size);
            for (int64_t tile = piece * each; tile < tiles && tile < (piece + 1) * each; ++tile) {
                const int64_t first = tile * TILE;
                backward_tile(plan, first, p.rows - first < TILE ? p.rows - first : TILE, scratch, Sums(plan, own));
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < size; i += W)  // size is a multiple of W
            for (int64_t piece = 1; piece <= pieces; ++piece) store(all + i, load(all + i) + load(all + piece * size + i));
    }
    const Sums sum(plan, all);
    plan.gather(p.d_w1, sum.dw1, plan.I);
    plan.gather(p.d_b1, sum.db1, 1);
    for (int64_t o = 0; p.d_w2 && o < plan.O; ++o)
        for (int64_t i = 0; i < plan.H; ++i) p.d_w2[o * plan.H + i] = sum.dw2_t[i * plan.O + o];
    if (p.d_b2) memcpy(p.d_b2, sum.db2, sizeof(float) * plan.O);
    if (p.d_gain) memcpy(p.d_gain, sum.d_gain, sizeof(float) * plan.I);
    if (p.d_shift) memcpy(p.d_shift, sum.d_shift, sizeof(float) * plan.I);
}

}  // namespace

extern "C" void position_wise(const Problem* p, int is_backward, int threads) {
    is_backward ? backward(*p, threads) : forward(*p, threads);
}
