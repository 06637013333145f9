// Attention arithmetic in bfloat16 with fp32 sums, by AVX-512-BF16: one instruction multiplies and adds a pair.
#pragma once
#include "attention_pairs.h"
#include "gemm.h"
#include "io.h"
#include "vecmath.h"

namespace qx {
namespace QX_NS {

// A word is two bfloat16.
struct PairStep {
    using Word = Word32;
    static V step(V sum, V b, Word a) { return _mm512_dpbf16_ps(sum, (__m512bh)b, (__m512bh)_mm512_set1_epi32(int(a))); }
    static V load_b(const Word* p) { return _mm512_loadu_ps(p); }
};

struct PairCore {
    using Memory = BF16;
    using T = uint16_t;
    using Word = Word32;
    using Probability = uint16_t;
    static constexpr int64_t head_step = 2;
    static constexpr int64_t key_step = 2;
    static constexpr int64_t row_step = 1;
    static constexpr int64_t score_step = 32;
    static bool reads_directly(int64_t stride) { return stride % 2 == 0; }
    static constexpr int64_t most_keys = 128;
    static constexpr int64_t most_rows = 8 * panel_rows;

    static int64_t words(int64_t values) { return (values + 1) / 2; }

    static void pack_row(const T* from, int64_t size, Word* to) { pack_pair_row(from, size, head_step, to); }
    static void pack_keys(const T* k, int64_t token, int64_t keys, int64_t size, Word* to) { pack_pair_keys(k, token, keys, size, head_step, panel_vectors, to); }
    static void pack_values(const T* v, int64_t token, int64_t keys, int64_t size, Word* to) { pack_pair_values(v, token, keys, size, key_step, panel_vectors, to); }

    static void scores(int64_t rows, const Word* q, int64_t ldq, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo) {
        const Panels panels(keys, panel_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first = int64_t(panels.first(p)) * width, w = int64_t(panels.vectors(p)) * width;
            if (first + w <= begin || first >= end) continue;
            panel_product<PairStep>(rows, panels.vectors(p), q, ldq, packed + first * words(size), words(size), out + first, ldo, false);
        }
    }

    static void values(int64_t rows, const Word* probabilities, int64_t ldp, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo, bool add) {
        const Panels panels(size, panel_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first = int64_t(panels.first(p)) * width, w = int64_t(panels.vectors(p)) * width;
            const Word* panel = packed + first * words(keys) + begin / 2 * w;
            panel_product<PairStep>(rows, panels.vectors(p), probabilities + begin / 2, ldp, panel, (end - begin) / 2, out + first, ldo, add);
        }
    }

    static void clear(Probability* row, int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) row[j] = 0;
    }

    // out = 2^(score * factor - top), rounded to bfloat16; may be in place. Returns the sum of
    // what was rounded, lane by lane.
    static V exponentials(const float* row, int64_t n, float factor, float top, Probability* out) {
        const V f = set1(factor), t = set1(-top);
        V total0 = set1(0), total1 = set1(0);
        for (int64_t j = 0; j < n; j += 32) {
            const V a = exp2<3>(fma(load(row + j), f, t)), b = exp2<3>(fma(load(row + j + 16), f, t));
            _mm512_storeu_si512(out + j, (__m512i)_mm512_cvtne2ps_pbh(b, a));
            total0 = total0 + a;
            total1 = total1 + b;
        }
        return total0 + total1;
    }
};

}  // namespace QX_NS
}  // namespace qx
