// Sums of values times weights, by products of pairs.
//
// A few tokens are read line by line as they lie in memory, once for every two rows of queries: the sums of two rows and
// 128 columns stay in registers meanwhile.
#pragma once
#include "decode_pairs.h"

namespace qx {
namespace QX_NS {

#if defined(__AVX512BF16__)

constexpr int64_t most_steps = 4;

// Values that a level-1 cache holds while all rows are worked on: those that are widened first are written to it besides.
template <class C>
constexpr int64_t values_at_once = holds_pairs<C> ? 16 : 32;

// Values of bfloat16, each `offset` behind its address, two tokens' interleaved as they are read.
struct ValuesInPlace {
    const uint16_t* const* values;
    int64_t offset;

    template <int N>
    void pairs(int64_t j, bool two, __m512i* out) const {
        const uint16_t *x = values[j] + offset, *y = values[j + 1] + offset;
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
            interleave(_mm512_loadu_si512(x + n * pair_step), two ? _mm512_loadu_si512(y + n * pair_step) : _mm512_setzero_si512(), out + 2 * n);
        }
    }
};

// Values that lie as pairs of two tokens, `ld` numbers a pair of tokens.
struct ValuesAsPairs {
    const uint16_t* room;
    int64_t ld;

    template <int N>
    void pairs(int64_t j, bool, __m512i* out) const {
#pragma GCC unroll 8
        for (int n = 0; n < 2 * N; ++n) out[n] = _mm512_loadu_si512(room + j / 2 * ld + n * pair_step);
    }
};

// sums [2][ld] += weights [2][weight_ld] times `count` tokens' values in 32 N columns; `ahead` is called once for two
// tokens. Behind an odd count the weight is zero.
template <int N, class Values, class Fn>
__attribute__((noinline)) static void add_values(const uint16_t* weights, int64_t weight_ld, Values values, int64_t count, float* sums, int64_t ld, Fn&& ahead) {
    V sum[2][2 * N];
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < 2 * N; ++n) sum[r][n] = load(sums + r * ld + n * width);
    const auto two = [&](int64_t j, auto both) {
        ahead();
        __m512i pairs[2 * N];
        values.template pairs<N>(j, decltype(both)::value, pairs);
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
            int32_t bits;
            std::memcpy(&bits, weights + r * weight_ld + j, 4);
            const __m512bh weight = (__m512bh)_mm512_set1_epi32(bits);
#pragma GCC unroll 8
            for (int n = 0; n < 2 * N; ++n) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], (__m512bh)pairs[n], weight);
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
