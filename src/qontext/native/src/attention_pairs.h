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
    for (int64_t d = 0; d < round_up(size, step); d += 32) {
        const int64_t words = (round_up(size, step) - d) / 2;
        const V v = load_words(from + d, size - d);
        if (words >= 16) _mm512_storeu_ps(to + d / 2, v);
        else _mm512_mask_storeu_ps(to + d / 2, lanes_below(int(words)), v);
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
                V in[16], out[16];
                for (int i = 0; i < 16; ++i) in[i] = i < there ? load_words(k + (first + v + i) * token + 2 * d, size - 2 * d) : _mm512_setzero_ps();
                transpose(in, out);
                const int n = int(words - d < 16 ? words - d : 16);
                for (int i = 0; i < n; ++i) _mm512_storeu_ps(panel + (d + i) * w + v, out[i]);
            }
        }
    }
}

// Values: [keys / 2, padded to `step` / 2][columns of the panel], a word holding keys 2 j and 2 j + 1 of a column.
static inline void pack_pair_values(const uint16_t* v, int64_t token, int64_t keys, int64_t size, int64_t step, int most_vectors, Word32* to) {
    const Panels panels(size, most_vectors);
    const int64_t words = round_up(keys, step) / 2;
    for (int p = 0; p < panels.count; ++p) {
        const int64_t first = int64_t(panels.first(p)) * 16, w = int64_t(panels.vectors(p)) * 16;
        Word32* panel = to + first * words;
        for (int64_t j = 0; j < words; ++j) {
            for (int64_t c = 0; c < w; c += 16) {
                const int64_t left = size - first - c;
                const __mmask16 there = lanes_below(int(left < 16 ? left : 16));
                const uint16_t* from = v + 2 * j * token + first + c;
                const __m256i none = _mm256_setzero_si256();
                const __m256i even = 2 * j < keys ? _mm256_maskz_loadu_epi16(there, from) : none;
                const __m256i odd = 2 * j + 1 < keys ? _mm256_maskz_loadu_epi16(there, from + token) : none;
                const __m512i pair = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
                _mm512_storeu_si512(panel + j * w + c, pair);
            }
        }
    }
}

}  // namespace QX_NS
}  // namespace qx
