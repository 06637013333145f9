// C [M, n] (+)= A [M, K] * B, with B packed in panels and A rows of 32-bit words: the micro-kernels of attention
// and of linear layers. M rows x N vectors of sums stay in registers; each word of A is broadcast against N vectors of B.
#pragma once
#include "panels.h"

namespace qx {
namespace QX_NS {

// A word is one float.
struct FloatStep {
    using Word = float;
    static V step(V sum, V b, Word a) { return fma(set1(a), b, sum); }
    static V load_b(const Word* p) { return load(p); }
};

// c [M, N * width] (+)= A * b, with b [steps][N * width]: word(m, k) is a word of A, and each(k) runs once a step.
template <class Step, int M, int N, class WordAt, class Packed, class Each>
static inline __attribute__((always_inline)) void product(const WordAt word, const Packed* b, int64_t steps, float* c, int64_t ldc, bool add, const Each each) {
    V sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[m][n] = add ? load(c + m * ldc + n * width) : set1(0.0f);
    for (int64_t k = 0; k < steps; ++k) {
        V bs[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) bs[n] = Step::load_b(b + (k * N + n) * width);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sums[m][n] = Step::step(sums[m][n], bs[n], word(m, k));
        each(k);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) store(c + m * ldc + n * width, sums[m][n]);
}

template <class Step, int M, int N>
static void micro_kernel(const typename Step::Word* a, int64_t lda, const typename Step::Word* b, int64_t steps, float* c, int64_t ldc, bool add) {
    product<Step, M, N>([=](int m, int64_t k) { return a[m * lda + k]; }, b, steps, c, ldc, add, [](int64_t) {});
}

template <class Step, int N>
static inline void rows_kernel(int rows, const typename Step::Word* a, int64_t lda, const typename Step::Word* b, int64_t steps, float* c, int64_t ldc, bool add) {
    static_assert(panel_rows == 6, "one case for each number of rows");
    switch (rows) {
        case 1: return micro_kernel<Step, 1, N>(a, lda, b, steps, c, ldc, add);
        case 2: return micro_kernel<Step, 2, N>(a, lda, b, steps, c, ldc, add);
        case 3: return micro_kernel<Step, 3, N>(a, lda, b, steps, c, ldc, add);
        case 4: return micro_kernel<Step, 4, N>(a, lda, b, steps, c, ldc, add);
        case 5: return micro_kernel<Step, 5, N>(a, lda, b, steps, c, ldc, add);
        default: return micro_kernel<Step, 6, N>(a, lda, b, steps, c, ldc, add);
    }
}

// All rows against one panel of `vectors` vectors, in groups of nearly equal height.
template <class Step>
static void panel_product(int64_t rows, int vectors, const typename Step::Word* a, int64_t lda, const typename Step::Word* b, int64_t steps, float* c, int64_t ldc, bool add) {
    const int64_t groups = (rows + panel_rows - 1) / panel_rows;
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t begin = rows * g / groups, end = rows * (g + 1) / groups;
        const int m = int(end - begin);
        const auto* at = a + begin * lda;
        float* to = c + begin * ldc;
        if constexpr (panel_vectors >= 4) {
            if (vectors == 4) { rows_kernel<Step, 4>(m, at, lda, b, steps, to, ldc, add); continue; }
            if (vectors == 3) { rows_kernel<Step, 3>(m, at, lda, b, steps, to, ldc, add); continue; }
        }
        if (vectors == 2) rows_kernel<Step, 2>(m, at, lda, b, steps, to, ldc, add);
        else rows_kernel<Step, 1>(m, at, lda, b, steps, to, ldc, add);
    }
}

}  // namespace QX_NS
}  // namespace qx
