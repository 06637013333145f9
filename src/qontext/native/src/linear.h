// y = act(x W^T + bias) + residual with weights packed once.
//
// A block of rows of x is packed so that it stays in the second-level cache; the weights stream past it panel by panel,
// each in chunks along K whose sums wait in a small scratch. Every weight is read once for each block of rows, and the
// chunk that comes next is fetched while this one is used: with few tokens, reading the weights is half of the time.
#pragma once
#include "group_words.h"
#include "linear_finish.h"
#include "scratch.h"

namespace qx {
namespace QX_NS {

// Of a block of packed rows of x: most of the second-level cache, which machines with AVX-512 have 1 MiB of or more.
#if defined(QX_USE_AVX512)
constexpr int64_t near_x_bytes = 768 * 1024;
#else
constexpr int64_t near_x_bytes = 192 * 1024;
#endif
constexpr int64_t most_block_rows = 10 * tile_rows;

// Rows [begin, end) in `parts` nearly equal parts: the beginning of part i.
static inline int64_t part_of(int64_t begin, int64_t end, int64_t i, int64_t parts) { return begin + (end - begin) * i / parts; }

// The same of [0, end), at an even number but for the end.
static inline int64_t even_part(int64_t end, int64_t i, int64_t parts) { return i == parts ? end : part_of(0, end, i, parts) & ~int64_t(1); }

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
template <class Words, template <class> class Weights>
static bool multiply(const QxLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
    using Word = typename Words::Word;
    using D = typename Words::Memory;
    const Panels panels(a.n, tile_vectors);
    const Weights<Words> weights(a);
    const int64_t words = Words::words(a.k), chunks = (words + weights.most_words - 1) / weights.most_words;
    int64_t most = near_x_bytes / (words * 4) / tile_rows * tile_rows;
    most = most < tile_rows ? tile_rows : most > most_block_rows ? most_block_rows : most;
    constexpr int64_t ldc = tile_vectors * width;
    const auto carve = [&](void* base, Word*& x, float*& sums, Word*& room) {
        Carver carver(base);
        x = carver.take<Word>(size_t(most * words + width));
        sums = carver.take<float>(size_t(most * ldc));
        room = carver.take<Word>(size_t(weights.room_words));
        return carver.used();
    };
    Word *x = nullptr, *room = nullptr;
    float* sums = nullptr;
    void* base = scratch(0, carve(nullptr, x, sums, room));
    if (!base) return false;
    carve(base, x, sums, room);
    const auto start_of = [&](int64_t panel) { return weights.place(int64_t(panels.first(int(panel))) * width, 0, 0); };
    const char* stop = start_of(last < panels.count ? last : panels.count);
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
            for (int64_t c = 0; c < chunks; ++c) {
                const int64_t k = even_part(words, c, chunks), steps = even_part(words, c + 1, chunks) - k;
                const Word* b = weights.take(column, vectors * width, k, steps, room);
                // What follows in memory is used next, but for the last chunk: there the next block starts over.
                const char* next = weights.place(column, vectors * width, k + steps);
                const int64_t bytes = next - weights.place(column, vectors * width, k);
                if (next >= stop) next = start_of(first);
                const int64_t lines = (bytes / 64 + tiles - 1) / tiles;
                for (int64_t t = 0; t < tiles; ++t) {
                    const int64_t r = part_of(0, rows, t, tiles), m = part_of(0, rows, t + 1, tiles) - r;
                    float* to = sums + r * ldc;
                    const char* ahead = next + t * lines * 64;
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
    return a.group ? multiply<Words, GroupWeights>(a, begin, end, first, last) : multiply<Words, WholeWeights>(a, begin, end, first, last);
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
