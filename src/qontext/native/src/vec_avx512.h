// Vectors of sixteen floats: AVX-512 F, BW, VL, DQ; bfloat16 stores by AVX-512-BF16 where the file is compiled for it.
#pragma once
#include <immintrin.h>

#include <cmath>

#include "half.h"

namespace qx {
namespace QX_NS {

typedef __m512 V;
constexpr int width = 16;
constexpr int panel_vectors = 4;
constexpr int panel_rows = 6;

static inline __mmask16 lanes_below(int n) { return __mmask16((1u << n) - 1u); }
static inline V set1(float x) { return _mm512_set1_ps(x); }
static inline V load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, V v) { _mm512_storeu_ps(p, v); }
static inline V load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
static inline void store_part(float* p, V v, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
static inline V first(V a, V b, int n) { return _mm512_mask_mov_ps(b, lanes_below(n), a); }

static inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
static inline V max(V a, V b) { return _mm512_max_ps(a, b); }
static inline V min(V a, V b) { return _mm512_min_ps(a, b); }
static inline V choose_negative(V sign, V negative, V positive) {
    return _mm512_mask_mov_ps(positive, _mm512_movepi32_mask(_mm512_castps_si512(sign)), negative);
}
static inline V abs(V a) { return _mm512_abs_ps(a); }
// One Newton step on the 14-bit estimate: within one unit of a division, at a fraction of its time.
static inline V reciprocal(V a) {
    const V r = _mm512_rcp14_ps(a);
    return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0f)), r);
}
// x - floor(x), 0 for an infinity; and p * 2^floor(x).
static inline V fraction(V x) { return _mm512_reduce_ps(x, 0x9); }
static inline V scale_by_floor(V p, V x) { return _mm512_scalef_ps(p, x); }
// Entry i of the 32 in `low` and `high`, where i are the low five bits of the lane's index.
static inline V look_up(V low, V high, V index) { return _mm512_permutex2var_ps(low, _mm512_castps_si512(index), high); }
static inline float sum(V a) { return _mm512_reduce_add_ps(a); }
static inline float largest(V a) { return _mm512_reduce_max_ps(a); }

static inline V widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
static inline V load_bf16(const uint16_t* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
static inline V load_bf16_part(const uint16_t* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(lanes_below(n), p)); }
static inline __m256i to_bf16(V v) {
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(v);
#else
    const __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i up = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    up = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(up);
#endif
}
static inline void store_bf16(uint16_t* p, V v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v)); }
static inline void store_bf16_part(uint16_t* p, V v, int n) { _mm256_mask_storeu_epi16(p, lanes_below(n), to_bf16(v)); }
static inline void store_bf16_two(uint16_t* p, V v, V next) {
#if defined(__AVX512BF16__)
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(next, v));
#else
    store_bf16(p, v);
    store_bf16(p + width, next);
#endif
}
static inline V load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
static inline V load_f16_part(const uint16_t* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_below(n), p)); }
static inline __m256i to_f16(V v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
static inline void store_f16(uint16_t* p, V v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_f16(v)); }
static inline void store_f16_part(uint16_t* p, V v, int n) { _mm256_mask_storeu_epi16(p, lanes_below(n), to_f16(v)); }

static inline V hide(V v, const uint8_t* keep, int n) {
    const __mmask16 shown = _mm_test_epi8_mask(_mm_maskz_loadu_epi8(lanes_below(n), keep), _mm_set1_epi8(-1));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), shown, v);
}

static inline void transpose(const V* in, V* out) {
    V a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(in[i], in[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(in[i], in[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {  // b[4 j + i]: column i of each 128-bit lane, rows 4 j to 4 j + 3
        const V low0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), high0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        const V low1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88), high1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        out[i] = _mm512_shuffle_f32x4(low0, low1, 0x88);
        out[i + 8] = _mm512_shuffle_f32x4(low0, low1, 0xdd);
        out[i + 4] = _mm512_shuffle_f32x4(high0, high1, 0x88);
        out[i + 12] = _mm512_shuffle_f32x4(high0, high1, 0xdd);
    }
}

// Lane r of the result is all lanes of in[r] combined: half the shuffles of a transpose.
template <class Combine>
static inline V fold(const V* in, Combine&& combine) {
    V a[8], b[4];
    for (int i = 0; i < 8; ++i) a[i] = combine(_mm512_unpacklo_ps(in[2 * i], in[2 * i + 1]), _mm512_unpackhi_ps(in[2 * i], in[2 * i + 1]));
    for (int i = 0; i < 4; ++i) b[i] = combine(_mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0x44), _mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0xee));
    const V c = combine(_mm512_shuffle_f32x4(b[0], b[1], 0x88), _mm512_shuffle_f32x4(b[0], b[1], 0xdd));
    const V d = combine(_mm512_shuffle_f32x4(b[2], b[3], 0x88), _mm512_shuffle_f32x4(b[2], b[3], 0xdd));
    return combine(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
}

}  // namespace QX_NS
}  // namespace qx
