// Attention arithmetic in fp32: any input type is widened while it is packed.
#pragma once
#include "gemm.h"
#include "io.h"
#include "vecmath.h"

namespace qx {
namespace QX_NS {

// `D` is the type in memory.
template <class D>
struct FloatCore {
    using Memory = D;
    using T = typename D::T;
    using Word = float;
    using Probability = float;
    static constexpr int64_t head_step = 1;        // the head size is rounded up to this
    static constexpr int64_t key_step = 1;         // and the number of keys in the second product
    static constexpr int64_t row_step = 1;         // and the number of rows
    static constexpr int64_t score_step = width;   // scores of a row are worked on in this many at a time
    static constexpr int64_t most_keys = 128;      // keys of a chunk
    static constexpr int64_t most_rows = 8 * panel_rows;

    // Whether queries that are `stride` values apart need no packing.
    static bool reads_directly(int64_t) { return D::code == QX_F32; }

    static int64_t words(int64_t size) { return size; }

    static void pack_row(const T* from, int64_t size, Word* to) {
        int64_t d = 0;
        for (; d + width <= size; d += width) store(to + d, D::load(from + d));
        if (const int rest = int(size - d)) store_part(to + d, D::load_part(from + d, rest), rest);
    }

    // Keys become columns: [head size][keys of the panel].
    static void pack_keys(const T* k, int64_t token, int64_t keys, int64_t size, Word* to) {
        const Panels panels(keys, panel_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t w = int64_t(panels.vectors(p)) * width;
            Word* panel = to + int64_t(panels.first(p)) * width * size;
            for (int64_t v = 0; v < w; v += width) {
                const int64_t first_key = int64_t(panels.first(p)) * width + v;
                const int there = int(keys - first_key < width ? keys - first_key : width);
                for (int64_t d = 0; d < size; d += width) {
                    const int n = int(size - d < width ? size - d : width);
                    V in[width], out[width];
                    for (int i = 0; i < width; ++i) {
                        const T* from = k + (first_key + i) * token + d;
                        in[i] = i >= there ? set1(0.0f) : n == width ? D::load(from) : D::load_part(from, n);
                    }
                    transpose(in, out);
                    for (int i = 0; i < n; ++i) store(panel + (d + i) * w + v, out[i]);
                }
            }
        }
    }

    // Values stay rows: [keys][value columns of the panel].
    static void pack_values(const T* v, int64_t token, int64_t keys, int64_t size, Word* to) {
        const Panels panels(size, panel_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first_column = int64_t(panels.first(p)) * width, w = int64_t(panels.vectors(p)) * width;
            Word* panel = to + first_column * keys;
            for (int64_t key = 0; key < keys; ++key) {
                for (int64_t c = 0; c < w; c += width) {
                    const int64_t left = size - first_column - c;
                    const T* from = v + key * token + first_column + c;
                    store(panel + key * w + c, left >= width ? D::load(from) : D::load_part(from, int(left)));
                }
            }
        }
    }

    // scores[rows, keys begin..end of the block] = q * keys
    static void scores(int64_t rows, const Word* q, int64_t ldq, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo) {
        const Panels panels(keys, panel_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first = int64_t(panels.first(p)) * width, w = int64_t(panels.vectors(p)) * width;
            if (first + w <= begin || first >= end) continue;
            panel_product<FloatStep>(rows, panels.vectors(p), q, ldq, packed + first * size, size, out + first, ldo, false);
        }
    }

    // out[rows, size] (+)= probabilities[rows, begin..end] * values
    static void values(int64_t rows, const Word* probabilities, int64_t ldp, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo, bool add) {
        const Panels panels(size, panel_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first = int64_t(panels.first(p)) * width, w = int64_t(panels.vectors(p)) * width;
            const Word* panel = packed + first * keys + begin * w;
            panel_product<FloatStep>(rows, panels.vectors(p), probabilities + begin, ldp, panel, end - begin, out + first, ldo, add);
        }
    }

    static void clear(Probability* row, int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) row[j] = 0.0f;
    }

    // out = 2^(score * factor - top) over n scores, a whole number of steps; may be in place. Returns their sum, lane by lane.
    static V exponentials(const float* row, int64_t n, float factor, float top, Probability* out) {
        const V f = set1(factor), t = set1(-top);
        V total0 = set1(0), total1 = set1(0);
        int64_t j = 0;
        for (; j + 2 * width <= n; j += 2 * width) {
            const V a = exp2<5>(fma(load(row + j), f, t)), b = exp2<5>(fma(load(row + j + width), f, t));
            store(out + j, a);
            store(out + j + width, b);
            total0 = total0 + a;
            total1 = total1 + b;
        }
        if (j < n) {
            const V a = exp2<5>(fma(load(row + j), f, t));
            store(out + j, a);
            total0 = total0 + a;
        }
        return total0 + total1;
    }
};

}  // namespace QX_NS
}  // namespace qx
