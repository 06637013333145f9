// The innermost product of a linear layer: M rows by N vectors of sums stay in registers while both operands stream by.
#pragma once
#include "linear_words.h"

namespace qx {
namespace QX_NS {

// As many sums as the registers hold beside N vectors of weights and one word of x.
#if defined(QX_USE_AVX512)
constexpr int tile_rows = 8, tile_vectors = 3;
#elif defined(QX_USE_AVX2)
constexpr int tile_rows = 4, tile_vectors = 3;
#else
constexpr int tile_rows = 4, tile_vectors = 2;
#endif

// Of a block of packed rows of x: most of the second-level cache, which machines with AVX-512 have 1 MiB of or more.
#if defined(QX_USE_AVX512)
constexpr int64_t near_x_bytes = 768 * 1024;
#else
constexpr int64_t near_x_bytes = 192 * 1024;
#endif
constexpr int64_t most_block_rows = 10 * tile_rows;

// Rows [begin, end) in `parts` nearly equal parts: the beginning of part i.
static inline int64_t part_of(int64_t begin, int64_t end, int64_t i, int64_t parts) { return begin + (end - begin) * i / parts; }

// c [M, N * width] (+)= a * b: a is [steps][M] words, b is [steps][N * width]. One line of what is needed next is brought
// into the second-level cache in each of the first `lines` steps: arithmetic takes long enough to hide it.
template <class Words, int M, int N>
static void tile_product(const typename Words::Word* a, const typename Words::Packed* b, int64_t steps, float* c, int64_t ldc, bool add, const char* next, int64_t lines) {
    const auto fetch = [=](int64_t k) {
        if (k < lines) __builtin_prefetch(next + k * 64, 0, 2);
    };
    product<Words, M, N>([=](int m, int64_t k) { return a[k * M + m]; }, b, steps, c, ldc, add, fetch);
}

template <class Words>
using TileProduct = void (*)(const typename Words::Word*, const typename Words::Packed*, int64_t, float*, int64_t, bool, const char*, int64_t);

template <class Words, int N>
static TileProduct<Words> product_of_rows(int rows) {
    static_assert(tile_rows == 4 || tile_rows == 8, "one case for each number of rows");
    if constexpr (tile_rows == 8) {
        switch (rows) {
            case 5: return tile_product<Words, 5, N>;
            case 6: return tile_product<Words, 6, N>;
            case 7: return tile_product<Words, 7, N>;
            case 8: return tile_product<Words, 8, N>;
        }
    }
    switch (rows) {
        case 1: return tile_product<Words, 1, N>;
        case 2: return tile_product<Words, 2, N>;
        case 3: return tile_product<Words, 3, N>;
        default: return tile_product<Words, 4, N>;
    }
}

template <class Words>
static TileProduct<Words> product_of(int rows, int vectors) {
    if constexpr (tile_vectors >= 3)
        if (vectors == 3) return product_of_rows<Words, 3>(rows);
    return vectors == 2 ? product_of_rows<Words, 2>(rows) : product_of_rows<Words, 1>(rows);
}

}  // namespace QX_NS
}  // namespace qx
