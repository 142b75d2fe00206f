// Sixteen floats at a time, by GCC's vector extensions: the compiler makes of them what the processor has.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace {

typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64)));
constexpr int W = 16;
const Ints IOTA = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline Lanes load(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline void store(float* p, Lanes x) { *reinterpret_cast<Lanes*>(p) = x; }
inline Lanes splat(float x) { return Lanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

inline Lanes exp_lanes(Lanes x) {  // of x up to 88; relative error below 2e-7; 0 from -87 on; NaN of NaN
    const Lanes magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    Lanes shifted = x * 1.44269504f + magic;
    Lanes n = shifted - magic;
    Lanes f = x - n * 0.693359375f;
    f = f + n * 2.12194440e-4f;
    Lanes y = splat(1.9875691500e-4f);
    y = y * f + 1.3981999507e-3f;
    y = y * f + 8.3334519073e-3f;
    y = y * f + 4.1665795894e-2f;
    y = y * f + 1.6666665459e-1f;
    y = y * f + 5.0000001201e-1f;
    y = y * (f * f) + f + 1.0f;
    Ints bits = reinterpret_cast<Ints>(y) + (reinterpret_cast<Ints>(shifted) << 23);
    const Lanes number = x <= splat(-87.0f) ? splat(0.0f) : reinterpret_cast<Lanes>(bits);
    return x != x ? x : number;  // a NaN from elsewhere may carry bits that the shift makes a number of
}

inline float sum_of(Lanes x) {  // in pairs: four steps, not sixteen that wait for each other
    x += __builtin_shuffle(x, IOTA ^ 8);
    x += __builtin_shuffle(x, IOTA ^ 4);
    x += __builtin_shuffle(x, IOTA ^ 2);
    return x[0] + x[1];
}

struct Scratch {  // of one thread; aligned, grows as needed
    float* data = nullptr;
    size_t size = 0;
    float* of(size_t floats) {
        if (floats > size) {
            free(data);
            size = floats + floats / 2;
            data = static_cast<float*>(aligned_alloc(64, (size * sizeof(float) + 63) / 64 * 64));
        }
        return data;
    }
    ~Scratch() { free(data); }
};

}  // namespace
