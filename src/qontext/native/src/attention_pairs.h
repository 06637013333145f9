// Packing of bfloat16 for products that take two neighbours at once: a word is a pair along the summed axis.
#pragma once
#include "panels.h"

namespace qx {
namespace QX_NS {

using Word32 = uint32_t;

// `size` values at `from`, `n` <= 32 of them there, as 16 words; the others are zero.
static inline V load_words(const uint16_t* from, int64_t n) {
    if (n >= 32) return _mm512_loadu_ps(from);
    if (n <= 0) return _mm512_setzero_ps();
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(__mmask32((uint64_t(1) << n) - 1), from));
}

// One query row of `size` values, padded with zeros to a multiple of `step` values.
static inline void pack_pair_row(const uint16_t* from, int64_t size, int64_t step, Word32* to) {
    int64_t d = 0;
    for (; d + 32 <= size; d += 32) _mm512_storeu_si512(to + d / 2, _mm512_loadu_si512(from + d));
    for (; d < round_up(size, step); d += 32) {
        const int64_t words = (round_up(size, step) - d) / 2;
        const V v = load_words(from + d, size - d);
        if (words >= 16) _mm512_storeu_ps(to + d / 2, v);
        else _mm512_mask_storeu_ps(to + d / 2, lanes_below(int(words)), v);
    }
}

// 16 rows of 16 words become 16 columns. Four quarters of a row are gathered by masked loads, which need no shuffle.
static inline void transpose_words(const uint16_t* from, int64_t token, Word32* to, int64_t ldt) {
    for (int c = 0; c < 4; ++c) {
        __m512i r[4];
        for (int i = 0; i < 4; ++i) {  // lane l: words 4 c to 4 c + 3 of row 4 l + i
            const auto quarter = [&](int l) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + (4 * l + i) * token + 8 * c)); };
            r[i] = _mm512_castsi128_si512(quarter(0));
            r[i] = _mm512_mask_broadcast_i32x4(r[i], 0x00f0, quarter(1));
            r[i] = _mm512_mask_broadcast_i32x4(r[i], 0x0f00, quarter(2));
            r[i] = _mm512_mask_broadcast_i32x4(r[i], 0xf000, quarter(3));
        }
        const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
        const __m512i x = _mm512_unpacklo_epi32(r[2], r[3]), y = _mm512_unpackhi_epi32(r[2], r[3]);
        _mm512_storeu_si512(to + (4 * c + 0) * ldt, _mm512_unpacklo_epi64(a, x));
        _mm512_storeu_si512(to + (4 * c + 1) * ldt, _mm512_unpackhi_epi64(a, x));
        _mm512_storeu_si512(to + (4 * c + 2) * ldt, _mm512_unpacklo_epi64(b, y));
        _mm512_storeu_si512(to + (4 * c + 3) * ldt, _mm512_unpackhi_epi64(b, y));
    }
}

// Keys as columns: [head size / 2, padded to `step` / 2][keys of the panel], a word holding values 2 d and 2 d + 1 of a key.
static inline void pack_pair_keys(const uint16_t* k, int64_t token, int64_t keys, int64_t size, int64_t step, int most_vectors, Word32* to) {
    const Panels panels(keys, most_vectors);
    const int64_t words = round_up(size, step) / 2;
    for (int p = 0; p < panels.count; ++p) {
        const int64_t first = int64_t(panels.first(p)) * 16, w = int64_t(panels.vectors(p)) * 16;
        Word32* panel = to + first * words;
        for (int64_t v = 0; v < w; v += 16) {
            const int there = int(keys - first - v < 16 ? keys - first - v : 16);
            for (int64_t d = 0; d < words; d += 16) {
                if (there == 16 && 2 * d + 32 <= size) {
                    transpose_words(k + (first + v) * token + 2 * d, token, panel + d * w + v, w);
                    continue;
                }
                V in[16], out[16];
                for (int i = 0; i < 16; ++i) in[i] = i < there ? load_words(k + (first + v + i) * token + 2 * d, size - 2 * d) : _mm512_setzero_ps();
                transpose(in, out);
                const int n = int(words - d < 16 ? words - d : 16);
                for (int i = 0; i < n; ++i) _mm512_storeu_ps(panel + (d + i) * w + v, out[i]);
            }
        }
    }
}

// 32 values of two rows, interleaved.
static inline void pair_rows(const uint16_t* even, const uint16_t* odd, Word32* to, Word32* next) {
    const __m512i a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(odd);
    const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(next, _mm512_permutex2var_epi64(low, second, high));
}

// Values: [keys / 2, padded to `step` / 2][columns of the panel], a word holding keys 2 j and 2 j + 1 of a column.
static inline void pack_pair_values(const uint16_t* v, int64_t token, int64_t keys, int64_t size, int64_t step, int most_vectors, Word32* to) {
    const Panels panels(size, most_vectors);
    const int64_t words = round_up(keys, step) / 2;
    Word32* at[32];  // where each group of 16 columns goes, and how far its rows are apart
    int64_t apart[32];
    int groups = 0;
    for (int p = 0; p < panels.count; ++p)
        for (int i = 0; i < panels.vectors(p); ++i, ++groups) {
            at[groups] = to + int64_t(panels.first(p)) * 16 * words + i * 16;
            apart[groups] = int64_t(panels.vectors(p)) * 16;
        }
    for (int64_t j = 0; j < words; ++j) {
        const uint16_t* from = v + 2 * j * token;
        const int64_t rows = keys - 2 * j;
        int g = 0;
        if (rows >= 2)
            for (; g * 16 + 32 <= size; g += 2) pair_rows(from + g * 16, from + token + g * 16, at[g] + j * apart[g], at[g + 1] + j * apart[g + 1]);
        for (; g < groups; ++g) {
            const int64_t left = size - g * 16;
            const __mmask16 lanes = lanes_below(int(left < 16 ? left : 16));
            const __m256i none = _mm256_setzero_si256();
            const __m256i even = rows > 0 ? _mm256_maskz_loadu_epi16(lanes, from + g * 16) : none;
            const __m256i odd = rows > 1 ? _mm256_maskz_loadu_epi16(lanes, from + token + g * 16) : none;
            const __m512i pair = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_storeu_si512(at[g] + j * apart[g], pair);
        }
    }
}

}  // namespace QX_NS
}  // namespace qx
