// y = act(x W^T + bias) + residual with weights packed once.
//
// A block of rows of x is packed so that it stays in the second-level cache; the weights stream past it panel by panel,
// each in chunks along K whose sums wait in a small scratch. Every weight is read once for each block of rows, and the
// chunk that comes next is fetched while this one is used: with few tokens, reading the weights is half of the time.
#pragma once
#include "group_linear.h"

namespace qx {
namespace QX_NS {

constexpr int64_t chunk_words = 512;  // along K: a chunk of weights and a tile of x fit beside each other

template <class Words>
static void pack_weight(const QxLinear& a, void* packed, int64_t first, int64_t last) {
    using Word = typename Words::Word;
    const Panels panels(a.n, tile_vectors);
    const int64_t words = Words::words(a.k);
    const auto* weight = static_cast<const typename Words::Memory::T*>(a.weight);
    for (int64_t p = first; p < last; ++p) {
        const int columns = panels.vectors(int(p)) * width;
        Word* panel = static_cast<Word*>(packed) + int64_t(panels.first(int(p))) * width * words;
        for (int v = 0; v < columns; v += width) {
            const int64_t row = int64_t(panels.first(int(p))) * width + v;
            const int rows = int(a.n - row < width ? a.n - row : width);
            turn_rows<Words>(weight + row * a.k, a.k, rows, a.k, columns, panel + v);
        }
    }
}

// Rows [begin, end) by panels [first, last). False when there is no memory for the scratch.
template <class Words>
static bool multiply(const QxLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
    using Word = typename Words::Word;
    using D = typename Words::Memory;
    const Panels panels(a.n, tile_vectors);
    const int64_t words = Words::words(a.k), chunks = (words + chunk_words - 1) / chunk_words;
    int64_t most = near_x_bytes / (words * 4) / tile_rows * tile_rows;
    most = most < tile_rows ? tile_rows : most > most_block_rows ? most_block_rows : most;
    constexpr int64_t ldc = tile_vectors * width;
    const auto carve = [&](void* base, Word*& x, float*& sums) {
        Carver carver(base);
        x = carver.take<Word>(size_t(most * words + width));
        sums = carver.take<float>(size_t(most * ldc));
        return carver.used();
    };
    Word* x = nullptr;
    float* sums = nullptr;
    void* base = scratch(0, carve(nullptr, x, sums));
    if (!base) return false;
    carve(base, x, sums);
    const Word* weight = static_cast<const Word*>(a.weight);
    const Word* stop = weight + int64_t(last < panels.count ? panels.first(int(last)) : panels.first(panels.count)) * width * words;
    const int64_t blocks = (end - begin + most - 1) / most;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t top = part_of(begin, end, block, blocks), rows = part_of(begin, end, block + 1, blocks) - top;
        const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
        const auto* source = static_cast<const typename D::T*>(a.x) + top * a.x_stride;
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t r = part_of(0, rows, t, tiles), m = part_of(0, rows, t + 1, tiles) - r;
            turn_rows<Words>(source + r * a.x_stride, a.x_stride, int(m), a.k, int(m), x + r * words);
        }
        for (int64_t p = first; p < last; ++p) {
            const int vectors = panels.vectors(int(p));
            const int64_t column = int64_t(panels.first(int(p))) * width;
            const int64_t columns = a.n - column < vectors * width ? a.n - column : vectors * width;
            const Word* panel = weight + column * words;
            for (int64_t c = 0; c < chunks; ++c) {
                const int64_t k = part_of(0, words, c, chunks), steps = part_of(0, words, c + 1, chunks) - k;
                const Word* b = panel + k * vectors * width;
                // What follows in memory is used next, but for the last chunk: there the next block starts over.
                const Word* next = b + steps * vectors * width;
                if (next >= stop) next = weight + int64_t(panels.first(int(first))) * width * words;
                const int64_t lines = (steps * vectors * width * 4 / 64 + tiles - 1) / tiles;
                for (int64_t t = 0; t < tiles; ++t) {
                    const int64_t r = part_of(0, rows, t, tiles), m = part_of(0, rows, t + 1, tiles) - r;
                    float* to = sums + r * ldc;
                    const char* ahead = reinterpret_cast<const char*>(next) + t * lines * 64;
                    product_of<Words>(int(m), vectors)(x + r * words + k * m, b, steps, to, ldc, c > 0, ahead, lines);
                }
            }
            finish<D>(a, top, rows, column, columns, sums, ldc);
        }
    }
    return true;
}

static int64_t linear_words(int64_t dtype, int64_t k) {
    switch (dtype) {
        case QX_F32: return FloatWords::words(k);
#if defined(__AVX512BF16__)
        case QX_BF16: return PairWords::words(k);
#endif
        default: return 0;
    }
}

static void linear_pack(const QxLinear& a, void* packed, int64_t first, int64_t last) {
    if (a.group) return pack_groups(a, packed, Panels(a.n, tile_vectors), first, last);
#if defined(__AVX512BF16__)
    if (a.dtype == QX_BF16) return pack_weight<PairWords>(a, packed, first, last);
#endif
    pack_weight<FloatWords>(a, packed, first, last);
}

template <class Words>
static bool multiply_any(const QxLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
    return a.group ? multiply_groups<Words>(a, begin, end, first, last) : multiply<Words>(a, begin, end, first, last);
}

static bool linear_part(const QxLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
#if defined(__AVX512BF16__)
    if (a.dtype == QX_BF16) return multiply_any<PairWords>(a, begin, end, first, last);
#endif
    return multiply_any<FloatWords>(a, begin, end, first, last);
}

static constexpr LinearKernels linear_kernels = {width, tile_vectors, linear_words, linear_pack, linear_part};

}  // namespace QX_NS
}  // namespace qx
