// Products of pairs of bfloat16 for attention over a cache: four rows of queries at a time; keys and values as they lie,
// or, of caches of eight bits, as bfloat16 that holds them exactly.
#pragma once
#include <array>
#include <type_traits>

#include "cached.h"
#include "decode_plan.h"

namespace qx {
namespace QX_NS {

constexpr int64_t pair_step = 32;  // columns that one instruction takes

// Whether a cache holds what the products take.
template <class C>
constexpr bool holds_pairs = std::is_same<C, BF16>::value;

#if defined(__AVX512BF16__)

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

// A key or value as pairs of bfloat16: where it lies, or written to `room`.
template <class C>
static inline const uint16_t* as_pairs(const typename C::T* from, int64_t size, uint16_t* room) {
    if constexpr (holds_pairs<C>) {
        return from;
    } else if constexpr (sizeof(typename C::T) == 1) {
        for (int64_t d = 0; d < size; d += pair_step) _mm512_storeu_si512(room + d, widened(C{}, from + d));
        return room;
    }
    return nullptr;
}

static inline __m512bh pairs_at(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

// The scores of four rows with four keys, row by row.
static inline V score_tile(const uint16_t* q, const uint16_t* const* keys, int64_t size) {
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
    return fold(sum, [](V x, V y) { return x + y; });
}

// scores [4 rows][decode_keys] of sixteen keys, times a factor; the `next` sixteen are brought near, a few at a time. Whole
// vectors are stored: what is stored in pieces is late for those who load the whole.
template <class Cached>
static inline void score_pairs(const uint16_t* q, const uint16_t* const* keys, const Cached* const* next, int64_t size, float factor, float* scores) {
    V tile[4];
    for (int i = 0; i < 4; ++i) {
        if (next)
            for (int n = 0; n < 4; ++n) bring_near(next[4 * i + n], size);
        tile[i] = score_tile(q, keys + 4 * i, size) * set1(factor);
    }
    const V low0 = _mm512_shuffle_f32x4(tile[0], tile[1], 0x44), high0 = _mm512_shuffle_f32x4(tile[0], tile[1], 0xee);
    const V low1 = _mm512_shuffle_f32x4(tile[2], tile[3], 0x44), high1 = _mm512_shuffle_f32x4(tile[2], tile[3], 0xee);
    store(scores, _mm512_shuffle_f32x4(low0, low1, 0x88));
    store(scores + decode_keys, _mm512_shuffle_f32x4(low0, low1, 0xdd));
    store(scores + 2 * decode_keys, _mm512_shuffle_f32x4(high0, high1, 0x88));
    store(scores + 3 * decode_keys, _mm512_shuffle_f32x4(high0, high1, 0xdd));
}

// Columns [c, c + 32 N): the values of two keys are interleaved, which puts the sums of 32 columns out of order.
template <int N, class Cached>
static inline void pair_columns(const uint16_t* p, const uint16_t* const* values, const Cached* const* next, int64_t count, int64_t c, float* sums, int64_t ld) {
    V sum[4][2 * N];
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row)
#pragma GCC unroll 4
        for (int n = 0; n < 2 * N; ++n) sum[row][n] = load(sums + row * ld + c + n * 16);
    for (int64_t j = 0; j < count; j += 2) {
        if (next)
#pragma GCC unroll 4
            for (int n = 0; n < 2 * N; ++n) __builtin_prefetch(next[j + n / N] + c + n % N * pair_step, 0, 2);
        const uint16_t *first = values[j] + c, *second = j + 1 < count ? values[j + 1] + c : first;  // its weight is zero then
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
static inline void add_pairs(const uint16_t* p, const uint16_t* const* values, const Cached* const* next, int64_t count, int64_t size, float* sums, int64_t ld) {
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

template <class C>
static inline const uint16_t* as_pairs(const typename C::T*, int64_t, uint16_t*) {
    return nullptr;
}
template <class Cached>
static inline void score_pairs(const uint16_t*, const uint16_t* const*, const Cached* const*, int64_t, float, float*) {}
template <class Cached>
static inline void add_pairs(const uint16_t*, const uint16_t* const*, const Cached* const*, int64_t, int64_t, float*, int64_t) {}
static inline void in_order(float*, int64_t, int64_t, int64_t) {}

#endif

}  // namespace QX_NS
}  // namespace qx
