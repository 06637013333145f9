// What a cache holds as pairs of bfloat16, which processors multiply with AVX-512-BF16: as it lies, or, of eight bits, as
// bfloat16 that holds it exactly.
#pragma once
#include <array>
#include <type_traits>

#include "cached.h"
#include "decode_plan.h"

namespace qx {
namespace QX_NS {

constexpr int64_t pair_step = 32;  // columns that one instruction takes

#if defined(__AVX512BF16__)

// Whether a cache holds what the products take.
template <class C>
constexpr bool holds_pairs = std::is_same<C, BF16>::value;
template <class D, class C>
constexpr bool multiplies_pairs = std::is_same<D, BF16>::value && (holds_pairs<C> || sizeof(typename C::T) == 1);

// The magnitudes of e4m3, 0 to 127, as bfloat16.
constexpr std::array<uint16_t, 128> e4m3_magnitudes() {
    std::array<uint16_t, 128> found{};
    for (int i = 1; i < 127; ++i) {
        const int exponent = i >> 3, fraction = i & 7;
        const int top = fraction >= 4 ? 2 : fraction >= 2 ? 1 : 0;  // of a number below the normal ones: its highest bit
        found[size_t(i)] = exponent ? uint16_t((exponent + 120) << 7 | fraction << 4) : uint16_t((top + 118) << 7 | ((fraction << (7 - top)) & 127));
    }
    found[127] = 0x7fc0;  // the one NaN
    return found;
}
alignas(64) static constexpr std::array<uint16_t, 128> e4m3_table = e4m3_magnitudes();

// 32 numbers of a cache as bfloat16.
static inline __m512i widened(BF16, const uint16_t* p) { return _mm512_loadu_si512(p); }
static inline __m512i widened(I8, const int8_t* p) {
    const __m128i *low = reinterpret_cast<const __m128i*>(p), *high = low + 1;
    const V x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(low))), y = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(high)));
    return (__m512i)_mm512_cvtne2ps_pbh(y, x);
}
static inline __m512i widened(E4M3, const uint8_t* p) {
    const __m512i* table = reinterpret_cast<const __m512i*>(e4m3_table.data());
    const __m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i small = _mm512_permutex2var_epi16(table[0], bytes, table[1]), large = _mm512_permutex2var_epi16(table[2], bytes, table[3]);
    const __m512i size = _mm512_mask_mov_epi16(small, _mm512_test_epi16_mask(bytes, _mm512_set1_epi16(0x40)), large);
    return _mm512_ternarylogic_epi64(_mm512_slli_epi16(bytes, 8), _mm512_set1_epi16(int16_t(0x8000)), size, 0xea);  // its sign put on
}

static inline __m512bh pairs_at(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

// Puts sums in order whose columns were interleaved: four of each eight lie in either vector.
static inline void in_order(float* sums, int64_t rows, int64_t ld, int64_t size) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < size; c += pair_step) {
            float* at = sums + r * ld + c;
            const V x = load(at), y = load(at + 16);
            store(at, _mm512_permutex2var_ps(x, low, y));
            store(at + 16, _mm512_permutex2var_ps(x, high, y));
        }
}

#endif

}  // namespace QX_NS
}  // namespace qx
