// Loads of what caches hold beside the float types: whole numbers and floats of eight bits.
#pragma once
#include "io.h"

namespace qx {
namespace QX_NS {

struct I8 {
    using T = int8_t;
#if defined(QX_USE_AVX512)
    static V load(const T* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))); }
    static V load_part(const T* p, int n) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes_below(n), p))); }
#else
    static V load(const T* p) { return load_part(p, width); }
    static V load_part(const T* p, int n) {
        float wide[width] = {};
        for (int i = 0; i < n; ++i) wide[i] = float(p[i]);
        return QX_NS::load(wide);
    }
#endif
};

// Four bits of exponent, three of fraction: a float16 with eight less in the exponent, no infinity, one NaN.
struct E4M3 {
    using T = uint8_t;
#if defined(QX_USE_AVX512)
    static V widen(__m128i bytes) {
        const __m256i h = _mm256_cvtepu8_epi16(bytes);
        const __m256i size = _mm256_and_si256(h, _mm256_set1_epi16(0x7f));
        const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(h, _mm256_set1_epi16(0x80)), 8);
        const __m256i half = _mm256_or_si256(_mm256_slli_epi16(size, 7), sign);
        const V v = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
        const __mmask16 bad = _mm256_cmpeq_epi16_mask(size, _mm256_set1_epi16(0x7f));
        return _mm512_mask_mov_ps(v, bad, _mm512_set1_ps(NAN));
    }
    static V load(const T* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
    static V load_part(const T* p, int n) { return widen(_mm_maskz_loadu_epi8(lanes_below(n), p)); }
#else
    static V load(const T* p) { return load_part(p, width); }
    static V load_part(const T* p, int n) {
        float wide[width] = {};
        for (int i = 0; i < n; ++i) {
            const uint16_t size = p[i] & 0x7f;
            wide[i] = size == 0x7f ? NAN : 256.0f * f16_to_float(uint16_t((size << 7) | ((p[i] & 0x80) << 8)));
        }
        return QX_NS::load(wide);
    }
#endif
};

// Calls f with the type that a cache code names.
template <class Fn>
static inline void with_cached(int64_t code, Fn&& f) {
    switch (code) {
        case QX_I8: return f(I8{});
        case QX_E4M3: return f(E4M3{});
        default: return with_type(code, f);
    }
}

}  // namespace QX_NS
}  // namespace qx
