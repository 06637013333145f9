// Products of pairs of bfloat16 for attention over a cache: four rows of queries at a time, keys and values as they lie.
#pragma once
#include <type_traits>

#include "cached.h"
#include "decode_plan.h"

namespace qx {
namespace QX_NS {

constexpr int64_t pair_step = 32;  // columns that one instruction takes

#if defined(__AVX512BF16__)

template <class D, class C>
constexpr bool multiplies_pairs = std::is_same<D, BF16>::value && std::is_same<C, BF16>::value;

static inline __m512bh pairs_at(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

// scores [4 rows][decode_keys] of four keys, times a factor.
template <class Cached>
static inline void score_pairs(const uint16_t* q, const Cached* const* keys, int64_t size, float factor, float* scores) {
    V sum[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sum[i] = set1(0);
    for (int64_t d = 0; d < size; d += pair_step) {
        __m512bh key[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) key[i] = pairs_at(keys[i] + d);
#pragma GCC unroll 4
        for (int row = 0; row < 4; ++row) {
            const __m512bh query = pairs_at(q + row * size + d);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) sum[row * 4 + i] = _mm512_dpbf16_ps(sum[row * 4 + i], query, key[i]);
        }
    }
    float folded[16];
    store(folded, fold(sum, [](V x, V y) { return x + y; }) * set1(factor));
    for (int row = 0; row < 4; ++row) std::memcpy(scores + row * decode_keys, folded + row * 4, 16);
}

// Columns [c, c + 32 N): the values of two keys are interleaved, which puts the sums of 32 columns out of order.
template <int N, class Cached>
static inline void pair_columns(const uint16_t* p, const Cached* const* values, const Cached* const* next, int64_t count, int64_t c, float* sums, int64_t ld) {
    V sum[4][2 * N];
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row)
#pragma GCC unroll 4
        for (int n = 0; n < 2 * N; ++n) sum[row][n] = load(sums + row * ld + c + n * 16);
    for (int64_t j = 0; j < count; j += 2) {
        if (next)
#pragma GCC unroll 4
            for (int n = 0; n < 2 * N; ++n) __builtin_prefetch(next[j + n / N] + c + n % N * pair_step, 0, 2);
        const Cached *first = values[j] + c, *second = j + 1 < count ? values[j + 1] + c : first;  // its weight is zero then
        __m512bh both[2 * N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
            const __m512i x = _mm512_loadu_si512(first + n * pair_step), y = j + 1 < count ? _mm512_loadu_si512(second + n * pair_step) : _mm512_setzero_si512();
            both[2 * n] = (__m512bh)_mm512_unpacklo_epi16(x, y);
            both[2 * n + 1] = (__m512bh)_mm512_unpackhi_epi16(x, y);
        }
#pragma GCC unroll 4
        for (int row = 0; row < 4; ++row) {
            int32_t pair;
            std::memcpy(&pair, p + row * decode_keys + j, 4);
            const __m512bh weights = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int n = 0; n < 2 * N; ++n) sum[row][n] = _mm512_dpbf16_ps(sum[row][n], both[n], weights);
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row)
#pragma GCC unroll 4
        for (int n = 0; n < 2 * N; ++n) store(sums + row * ld + c + n * 16, sum[row][n]);
}

// sums [4 rows][size] += weights * values, out of order within every 32 columns; the `next` values are brought near.
template <class Cached>
static inline void add_pairs(const uint16_t* p, const Cached* const* values, const Cached* const* next, int64_t count, int64_t size, float* sums, int64_t ld) {
    int64_t c = 0;
    for (; c + 2 * pair_step <= size; c += 2 * pair_step) pair_columns<2>(p, values, next, count, c, sums, ld);
    if (c < size) pair_columns<1>(p, values, next, count, c, sums, ld);
}

// Puts the sums of `add_pairs` in order: the interleaving takes four columns of each eight into either vector.
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

#else

template <class D, class C>
constexpr bool multiplies_pairs = false;

template <class Cached>
static inline void score_pairs(const uint16_t*, const Cached* const*, int64_t, float, float*) {}
template <class Cached>
static inline void add_pairs(const uint16_t*, const Cached* const*, const Cached* const*, int64_t, int64_t, float*, int64_t) {}
static inline void in_order(float*, int64_t, int64_t, int64_t) {}

#endif

}  // namespace QX_NS
}  // namespace qx
