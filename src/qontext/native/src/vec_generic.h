// Vectors of four floats by the compiler's own vector type: runs on every architecture, fast on none.
#pragma once
#include <cmath>
#include <cstring>

#include "half.h"

namespace qx {
namespace QX_NS {

typedef float V __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(16)));
constexpr int width = 4;
constexpr int panel_vectors = 2;  // columns of a micro-kernel, in vectors
constexpr int panel_rows = 6;

static inline V set1(float x) { return V{x, x, x, x}; }
static inline V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
static inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
static inline V load_part(const float* p, int n) {
    V v = set1(0);
    std::memcpy(&v, p, size_t(n) * 4);
    return v;
}
static inline void store_part(float* p, V v, int n) { std::memcpy(p, &v, size_t(n) * 4); }
// The first n lanes of a, the others of b.
static inline V first(V a, V b, int n) {
    for (int i = n; i < width; ++i) a[i] = b[i];
    return a;
}

static inline V fma(V a, V b, V c) { return a * b + c; }
static inline V max(V a, V b) { return a > b ? a : b; }  // b when either is NaN, as the vector instructions do
static inline V min(V a, V b) { return a < b ? a : b; }
static inline V choose_negative(V sign, V negative, V positive) { return sign < set1(0) ? negative : positive; }
static inline V abs(V a) {
    I bits;
    std::memcpy(&bits, &a, sizeof bits);
    bits &= 0x7fffffff;
    std::memcpy(&a, &bits, sizeof a);
    return a;
}
static inline V reciprocal(V a) { return set1(1.0f) / a; }
// p * 2^n where n stands in the low bits of t.
static inline V scale_by_power(V p, V t) {
    I bits, n;
    std::memcpy(&bits, &p, sizeof bits);
    std::memcpy(&n, &t, sizeof n);
    bits += n << 23;
    std::memcpy(&p, &bits, sizeof p);
    return p;
}
static inline float sum(V a) { return (a[0] + a[2]) + (a[1] + a[3]); }
static inline float largest(V a) {
    float m = a[0];
    for (int i = 1; i < width; ++i) m = m > a[i] ? m : a[i];
    return m;
}

static inline V load_bf16(const uint16_t* p) { return V{bf16_to_float(p[0]), bf16_to_float(p[1]), bf16_to_float(p[2]), bf16_to_float(p[3])}; }
static inline V load_bf16_part(const uint16_t* p, int n) {
    V v = set1(0);
    for (int i = 0; i < n; ++i) v[i] = bf16_to_float(p[i]);
    return v;
}
static inline void store_bf16_part(uint16_t* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = float_to_bf16(v[i]);
}
static inline void store_bf16(uint16_t* p, V v) { store_bf16_part(p, v, width); }
static inline V load_f16_part(const uint16_t* p, int n) {
    V v = set1(0);
    for (int i = 0; i < n; ++i) v[i] = f16_to_float(p[i]);
    return v;
}
static inline void store_bf16_two(uint16_t* p, V v, V next) {
    store_bf16(p, v);
    store_bf16(p + width, next);
}
static inline V load_f16(const uint16_t* p) { return load_f16_part(p, width); }
static inline void store_f16_part(uint16_t* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = float_to_f16(v[i]);
}
static inline void store_f16(uint16_t* p, V v) { store_f16_part(p, v, width); }

// Lanes where the byte is zero become -inf.
static inline V hide(V v, const uint8_t* keep, int n) {
    for (int i = 0; i < n; ++i)
        if (!keep[i]) v[i] = -INFINITY;
    return v;
}

// out[c] = lane c of each in[r].
static inline void transpose(const V* in, V* out) {
    for (int r = 0; r < width; ++r)
        for (int c = 0; c < width; ++c) out[c][r] = in[r][c];
}

// Lane r of the result is all lanes of in[r] combined.
template <class Combine>
static inline V fold(const V* in, Combine&& combine) {
    V columns[width];
    transpose(in, columns);
    for (int n = width / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) columns[i] = combine(columns[i], columns[i + n]);
    return columns[0];
}

}  // namespace QX_NS
}  // namespace qx
