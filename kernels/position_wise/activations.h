// Activations and their slopes, sixteen values at a time.

#pragma once

#include "lanes.h"

namespace {

inline Lanes sigmoid(Lanes x) {
    const Lanes low = splat(-87.0f), open = 1.0f / (1.0f + exp_lanes(x < low ? -low : -x));
    return x < low ? splat(0.0f) : open;
}

struct Gelu {  // x * P(X <= x), X normal
    Lanes value, slope;
    explicit Gelu(Lanes x) {  // erf by formula 7.1.26 of Abramowitz and Stegun, absolute error 1.5e-7
        const Lanes size = x < splat(0.0f) ? -x : x, bell = exp_lanes(x * x * -0.5f);
        const Lanes t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * size);
        Lanes tail = splat(1.061405429f);
        tail = tail * t - 1.453152027f;
        tail = tail * t + 1.421413741f;
        tail = tail * t - 0.284496736f;
        tail = tail * t + 0.254829592f;
        tail = 0.5f * tail * t * bell;  // P(X > |x|)
        const Lanes below = x < splat(0.0f) ? tail : 1.0f - tail;
        value = x * below, slope = below + x * bell * 0.39894228f;
    }
};

}  // namespace
