// Vectors of eight floats: AVX2, FMA, F16C.
#pragma once
#include <immintrin.h>

#include <cmath>

#include "half.h"

namespace qx {
namespace QX_NS {

typedef __m256 V;
constexpr int width = 8;
constexpr int panel_vectors = 2;
constexpr int panel_rows = 6;

static inline __m256i lanes_below(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline V set1(float x) { return _mm256_set1_ps(x); }
static inline V load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, V v) { _mm256_storeu_ps(p, v); }
static inline V load_part(const float* p, int n) { return _mm256_maskload_ps(p, lanes_below(n)); }
static inline void store_part(float* p, V v, int n) { _mm256_maskstore_ps(p, lanes_below(n), v); }
static inline V first(V a, V b, int n) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(lanes_below(n))); }

static inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
static inline V max(V a, V b) { return _mm256_max_ps(a, b); }
static inline V min(V a, V b) { return _mm256_min_ps(a, b); }
static inline V choose_negative(V sign, V negative, V positive) { return _mm256_blendv_ps(positive, negative, sign); }
static inline V abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline V reciprocal(V a) { return _mm256_div_ps(_mm256_set1_ps(1.0f), a); }
static inline V scale_by_power(V p, V t) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
static inline float sum(V a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
static inline float largest(V a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

static inline V load_bf16(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline __m128i to_bf16(V v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    up = _mm256_blendv_epi8(up, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    return _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
}
static inline void store_bf16(uint16_t* p, V v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(v)); }
static inline void store_bf16_two(uint16_t* p, V v, V next) {
    store_bf16(p, v);
    store_bf16(p + width, next);
}
static inline V load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
static inline void store_f16(uint16_t* p, V v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
// Sixteen-bit lanes have no masked moves here: a part goes through a small buffer.
static inline V load_bf16_part(const uint16_t* p, int n) {
    uint16_t lanes[8] = {0};
    std::memcpy(lanes, p, size_t(n) * 2);
    return load_bf16(lanes);
}
static inline void store_bf16_part(uint16_t* p, V v, int n) {
    uint16_t lanes[8];
    store_bf16(lanes, v);
    std::memcpy(p, lanes, size_t(n) * 2);
}
static inline V load_f16_part(const uint16_t* p, int n) {
    uint16_t lanes[8] = {0};
    std::memcpy(lanes, p, size_t(n) * 2);
    return load_f16(lanes);
}
static inline void store_f16_part(uint16_t* p, V v, int n) {
    uint16_t lanes[8];
    store_f16(lanes, v);
    std::memcpy(p, lanes, size_t(n) * 2);
}

static inline V hide(V v, const uint8_t* keep, int n) {
    uint8_t lanes[8] = {0};
    std::memcpy(lanes, keep, size_t(n));
    uint64_t packed;
    std::memcpy(&packed, lanes, 8);
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(packed)));
    const __m256i hidden = _mm256_cmpeq_epi32(wide, _mm256_setzero_si256());
    return _mm256_blendv_ps(v, _mm256_set1_ps(-INFINITY), _mm256_castsi256_ps(hidden));
}

static inline void transpose(const V* in, V* out) {
    V a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(in[i], in[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(in[i], in[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        out[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        out[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
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
