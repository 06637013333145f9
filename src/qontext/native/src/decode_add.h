// Sums of values times weights, by products of pairs: two tokens' values are interleaved, column by column.
//
// Sixteen tokens are read line by line as they lie in memory, once for every two rows of queries: the sums of two rows
// and 128 columns stay in registers meanwhile.
#pragma once
#include "decode_pairs.h"

namespace qx {
namespace QX_NS {

#if defined(__AVX512BF16__)

constexpr int64_t values_at_once = 16, most_steps = 4;

// sums [2][ld] += weights [2][weight_ld] times `count` tokens' values, each `offset` behind its address, in 32 N columns
// that get out of order; `ahead` is called once for two tokens. Beyond an odd count there is nothing, and weights are zero.
template <int N, class C, class Fn>
static inline void add_values(const uint16_t* weights, int64_t weight_ld, const typename C::T* const* values, int64_t offset, int64_t count, float* sums, int64_t ld, Fn&& ahead) {
    V sum[2][2 * N];
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < 2 * N; ++n) sum[r][n] = load(sums + r * ld + n * width);
    const auto two = [&](int64_t j, auto second) {
        const typename C::T *x = values[j] + offset, *y = values[j + 1] + offset;
        ahead();
        __m512bh pairs[2 * N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
            const __m512i a = widened(C{}, x + n * pair_step), b = decltype(second)::value ? widened(C{}, y + n * pair_step) : _mm512_setzero_si512();
            pairs[2 * n] = (__m512bh)_mm512_unpacklo_epi16(a, b);
            pairs[2 * n + 1] = (__m512bh)_mm512_unpackhi_epi16(a, b);
        }
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
            int32_t both;
            std::memcpy(&both, weights + r * weight_ld + j, 4);
            const __m512bh weight = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 8
            for (int n = 0; n < 2 * N; ++n) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], pairs[n], weight);
        }
    };
    int64_t j = 0;
    for (; j + 2 <= count; j += 2) two(j, std::true_type{});
    if (j < count) two(j, std::false_type{});
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < 2 * N; ++n) store(sums + r * ld + n * width, sum[r][n]);
}

#endif

}  // namespace QX_NS
}  // namespace qx
