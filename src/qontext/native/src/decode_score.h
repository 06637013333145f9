// Scores of four rows of queries with sixteen keys, by products of pairs.
//
// A key is read whole before the next, line by line as it lies in memory. Four rows times a key are four vectors, which
// are folded into one at once; sixteen of those make the scores.
#pragma once
#include "decode_pairs.h"

namespace qx {
namespace QX_NS {

#if defined(__AVX512BF16__)

// Lanes added in fours: row r of the four is in lane r of every 128 bits.
static inline V fold_rows(const V* s) {
    const V x = _mm512_unpacklo_ps(s[0], s[1]) + _mm512_unpackhi_ps(s[0], s[1]);
    const V y = _mm512_unpacklo_ps(s[2], s[3]) + _mm512_unpackhi_ps(s[2], s[3]);
    return _mm512_shuffle_ps(x, y, 0x44) + _mm512_shuffle_ps(x, y, 0xee);
}

// Of four keys' folded rows: row r of key k in lane 4 k + r.
static inline V fold_keys(const V* e) {
    const V x = _mm512_shuffle_f32x4(e[0], e[1], 0x88) + _mm512_shuffle_f32x4(e[0], e[1], 0xdd);
    const V y = _mm512_shuffle_f32x4(e[2], e[3], 0x88) + _mm512_shuffle_f32x4(e[2], e[3], 0xdd);
    return _mm512_shuffle_f32x4(x, y, 0x88) + _mm512_shuffle_f32x4(x, y, 0xdd);
}

// Stores four times four keys' rows row by row, times a factor.
static inline void store_scores(const V* four, float factor, float* scores, int64_t ld) {
    const V by = set1(factor);
    const V a = _mm512_unpacklo_ps(four[0], four[1]), b = _mm512_unpackhi_ps(four[0], four[1]);
    const V c = _mm512_unpacklo_ps(four[2], four[3]), d = _mm512_unpackhi_ps(four[2], four[3]);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    store(scores, by * _mm512_permutexvar_ps(order, _mm512_shuffle_ps(a, c, 0x44)));
    store(scores + ld, by * _mm512_permutexvar_ps(order, _mm512_shuffle_ps(a, c, 0xee)));
    store(scores + 2 * ld, by * _mm512_permutexvar_ps(order, _mm512_shuffle_ps(b, d, 0x44)));
    store(scores + 3 * ld, by * _mm512_permutexvar_ps(order, _mm512_shuffle_ps(b, d, 0xee)));
}

// Keys of bfloat16 where they lie, each `offset` behind its address, or in a line.
struct KeysInPlace {
    const uint16_t* const* keys;
    int64_t offset;
    const uint16_t* operator()(int64_t j) const { return keys[j] + offset; }
};
struct KeysInLine {
    const uint16_t* room;
    int64_t size;
    const uint16_t* operator()(int64_t j) const { return room + j * size; }
};

// scores [4][ld] of queries [4][size] and sixteen keys; `ahead` is called once a key.
// Steps is size / 32 where it is known: the queries then stay in registers.
template <int Steps, class Keys, class Fn>
__attribute__((noinline)) static void score_keys(const uint16_t* q, Keys keys, int64_t size, float factor, float* scores, int64_t ld, Fn&& ahead) {
    constexpr int held = Steps ? Steps : 1;
    __m512bh query[4][held];
    if constexpr (Steps != 0)
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r)
#pragma GCC unroll 4
            for (int n = 0; n < Steps; ++n) query[r][n] = pairs_at(q + r * size + n * pair_step);
    V four[4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
        V folded[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const uint16_t* key = keys(4 * g + i);
            ahead();
            V sum[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) sum[r] = set1(0);
            if constexpr (Steps != 0) {
#pragma GCC unroll 4
                for (int n = 0; n < Steps; ++n) {
                    const __m512bh pairs = pairs_at(key + n * pair_step);
#pragma GCC unroll 4
                    for (int r = 0; r < 4; ++r) sum[r] = _mm512_dpbf16_ps(sum[r], query[r][n], pairs);
                }
            } else {
                for (int64_t d = 0; d < size; d += pair_step) {
                    const __m512bh pairs = pairs_at(key + d);
#pragma GCC unroll 4
                    for (int r = 0; r < 4; ++r) sum[r] = _mm512_dpbf16_ps(sum[r], pairs_at(q + r * size + d), pairs);
                }
            }
            folded[i] = fold_rows(sum);
        }
        four[g] = fold_keys(folded);
    }
    store_scores(four, factor, scores, ld);
}

#endif

}  // namespace QX_NS
}  // namespace qx
