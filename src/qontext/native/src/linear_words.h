// How the operands of a linear layer become 32-bit words: one float, or two bfloat16 that follow each other along K.
#pragma once
#include "gemm.h"
#include "io.h"
#if defined(__AVX512BF16__)
#include "attention_bf16.h"
#endif

namespace qx {
namespace QX_NS {

struct FloatWords : FloatStep {
    using Memory = F32;
    using Packed = Word;  // what weights are read as
    static constexpr int64_t words(int64_t values) { return values; }
    // The words of values [at, at + width) of a row of `size`; those past its end are zero.
    static V read(const float* row, int64_t at, int64_t size) {
        const int64_t left = size - at;
        return left >= width ? load(row + at) : left > 0 ? load_part(row + at, int(left)) : set1(0.0f);
    }
};

#if defined(__AVX512BF16__)
struct PairWords : PairStep {
    using Memory = BF16;
    using Packed = Word;
    static constexpr int64_t words(int64_t values) { return (values + 1) / 2; }
    static V read(const uint16_t* row, int64_t at, int64_t size) { return load_words(row + 2 * at, size - 2 * at); }
};
#endif

// Rows become columns: to[k * columns + r] is word k of row r, for rows [0, rows) and words [0, words); rows up to
// `columns` (at most `width`) are zero. Writes up to width - columns words past the end.
template <class Words>
static void turn_rows(const typename Words::Memory::T* from, int64_t stride, int rows, int64_t size, int columns, typename Words::Word* to) {
    const int64_t words = Words::words(size);
    for (int64_t k = 0; k < words; k += width) {
        V in[width], out[width];
        for (int r = 0; r < width; ++r) in[r] = r < rows ? Words::read(from + r * stride, k, size) : set1(0.0f);
        transpose(in, out);
        const int there = int(words - k < width ? words - k : width);
        for (int i = 0; i < there; ++i) store(reinterpret_cast<float*>(to + (k + i) * columns), out[i]);
    }
}

}  // namespace QX_NS
}  // namespace qx
