// Pairs of bfloat16, which processors multiply with AVX-512-BF16, of what a cache holds: of bfloat16 as it lies, of eight
// bits as bfloat16 that holds it exactly.
#pragma once
#include <type_traits>

#include "cached.h"
#include "decode_plan.h"

namespace qx {
namespace QX_NS {

#if defined(__AVX512BF16__)

constexpr int64_t pair_step = 32;  // columns that one instruction takes

// Whether a cache holds what the products take.
template <class C>
constexpr bool holds_pairs = std::is_same<C, BF16>::value;
template <class D, class C>
constexpr bool multiplies_pairs = std::is_same<D, BF16>::value && (holds_pairs<C> || sizeof(typename C::T) == 1);

static inline __m512bh pairs_at(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

// Two tokens' 32 columns interleaved: four of each eight columns get into either vector.
static inline void interleave(__m512i x, __m512i y, __m512i* out) {
    out[0] = _mm512_unpacklo_epi16(x, y);
    out[1] = _mm512_unpackhi_epi16(x, y);
}

// Puts sums of interleaved columns in order.
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
