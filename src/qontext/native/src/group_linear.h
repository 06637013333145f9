// Weights of four bits: two values a byte, whole numbers that stand for (value - zero) * scale, with a scale and a zero for
// each group of values that follow each other along K. Products are those of x and the whole numbers; a group's sum is
// scaled when it is complete, and what its zero adds is taken off by the sum of x over the group.
#pragma once
#include "linear_finish.h"
#include "linear_tile.h"
#include "scratch.h"

namespace qx {
namespace QX_NS {

// Packed: the bytes of all panels, [k / 2][columns] each, with value 2 j in the low half; then in the same order of panels
// the scales [groups][columns] as floats, and the zeros as bytes. Columns are filled up with scales of zero.
struct GroupLayout {
    int64_t k, groups, columns;
    explicit GroupLayout(const QxLinear& a) : k(a.k), groups(a.k / a.group), columns(round_up(a.n, width)) {}
    template <class T>
    T* scales(T* packed) const { return packed + columns * (k / 2); }
    template <class T>
    T* zeros(T* packed) const { return packed + columns * (k / 2 + 4 * groups); }
};

static void pack_groups(const QxLinear& a, void* packed, const Panels& panels, int64_t first, int64_t last) {
    const GroupLayout lay(a);
    uint8_t* base = static_cast<uint8_t*>(packed);
    const uint8_t* weight = static_cast<const uint8_t*>(a.weight);
    const float* scale = static_cast<const float*>(a.group_scale);
    const uint8_t* zero = static_cast<const uint8_t*>(a.group_zero);
    for (int64_t p = first; p < last; ++p) {
        const int64_t columns = panels.vectors(int(p)) * width, column = int64_t(panels.first(int(p))) * width;
        uint8_t* bytes = base + column * (lay.k / 2);
        uint8_t* scales = lay.scales(base) + 4 * column * lay.groups;
        uint8_t* zeros = lay.zeros(base) + column * lay.groups;
        for (int64_t c = 0; c < columns; ++c) {
            const int64_t n = column + c;
            const bool there = n < a.n;
            for (int64_t j = 0; j < lay.k / 2; ++j) bytes[j * columns + c] = there ? weight[n * (lay.k / 2) + j] : 0;
            for (int64_t g = 0; g < lay.groups; ++g) {
                const float s = there ? scale[n * lay.groups + g] : 0.0f;
                std::memcpy(scales + 4 * (g * columns + c), &s, 4);
                zeros[g * columns + c] = there ? zero[n * lay.groups + g] : 0;
            }
        }
    }
}

// The low and the high halves of `width` bytes as floats.
static inline void halves_of(const uint8_t* p, V& low, V& high) {
#if defined(QX_USE_AVX512)
    // A permutation looks at the low four bits of its index alone.
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const V values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    low = _mm512_permutexvar_ps(both, values);
    high = _mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), values);
#elif defined(QX_USE_AVX2)
    const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    low = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
    high = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
#else
    for (int i = 0; i < width; ++i) {
        low[i] = float(p[i] & 15);
        high[i] = float(p[i] >> 4);
    }
#endif
}

static inline V bytes_as_floats(const uint8_t* p) {
    V low, high;
    halves_of(p, low, high);
    return fma(high, set1(16.0f), low);
}

// The words of `rows` rows of bytes, [rows][columns] each of which holds two values of every column.
static void words_of_bytes(const FloatWords&, const uint8_t* from, int64_t rows, int64_t columns, float* to) {
    for (int64_t at = 0; at < rows; ++at)
        for (int64_t c = 0; c < columns; c += width) {
            V low, high;
            halves_of(from + at * columns + c, low, high);
            store(to + 2 * at * columns + c, low);
            store(to + (2 * at + 1) * columns + c, high);
        }
}

#if defined(__AVX512BF16__)
// Words made of bytes as they are read.
struct ByteWords : PairWords {
    using Packed = uint8_t;
    static V load_b(const uint8_t* p) {
        // Lanes of 16 bits with the low half of a byte in one and the high half in the next; a permutation looks at their
        // low five bits, of which the table takes no notice of the fifth.
        const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        const __m512i index = _mm512_or_si512(both, _mm512_slli_epi32(both, 12));
        const __m512i values = _mm512_setr_epi32(0x3f800000, 0x40404000, 0x40a04080, 0x40e040c0, 0x41104100, 0x41304120, 0x41504140, 0x41704160,
                                                 0x3f800000, 0x40404000, 0x40a04080, 0x40e040c0, 0x41104100, 0x41304120, 0x41504140, 0x41704160);
        return _mm512_castsi512_ps(_mm512_permutexvar_epi16(index, values));
    }
};

static void words_of_bytes(const PairWords&, const uint8_t* from, int64_t rows, int64_t columns, Word32* to) {
    for (int64_t i = 0; i < rows * columns; i += width) _mm512_storeu_ps(to + i, ByteWords::load_b(from + i));
}

constexpr int64_t tiles_read_straight = 2;  // of rows: for more, making words once is quicker than for each
#endif

// The sum of x over each group: [groups] of one row.
template <class D>
static void group_sums(const typename D::T* x, int64_t groups, int64_t group, float* to) {
    for (int64_t g = 0; g < groups; ++g, x += group) {
        V total = set1(0.0f);
        int64_t k = 0;
        for (; k + width <= group; k += width) total = total + D::load(x + k);
        if (k < group) total = total + D::load_part(x + k, int(group - k));
        to[g] = sum(total);
    }
}

// Rows [begin, end) by panels [first, last). False when there is no memory for the scratch.
template <class Words>
static bool multiply_groups(const QxLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
    using Word = typename Words::Word;
    using D = typename Words::Memory;
    const Panels panels(a.n, tile_vectors);
    const GroupLayout lay(a);
    constexpr int64_t words_a_byte = Words::words(2), most_bytes = 128 / words_a_byte;  // a chunk of words fits the nearest cache
    const int64_t words = Words::words(a.k), in_group = a.group / 2, chunks = (in_group + most_bytes - 1) / most_bytes;
    int64_t most = near_x_bytes / (words * 4) / tile_rows * tile_rows;
    most = most < tile_rows ? tile_rows : most > most_block_rows ? most_block_rows : most;
    constexpr int64_t ldc = tile_vectors * width;
    Word *x = nullptr, *room = nullptr;
    float *sums = nullptr, *totals = nullptr, *of_x = nullptr;
    void* base = nullptr;
    for (int pass = 0; pass < 2; ++pass) {
        Carver carver(base);
        x = carver.take<Word>(size_t(most * words + width));
        room = carver.take<Word>(size_t((most_bytes + 1) * words_a_byte * ldc));
        sums = carver.take<float>(size_t(most * ldc));
        totals = carver.take<float>(size_t(most * ldc));
        of_x = carver.take<float>(size_t(most * lay.groups));
        if (pass == 0 && !(base = scratch(0, carver.used()))) return false;
    }
    const uint8_t* weight = static_cast<const uint8_t*>(a.weight);
    const int64_t blocks = (end - begin + most - 1) / most;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t top = part_of(begin, end, block, blocks), rows = part_of(begin, end, block + 1, blocks) - top;
        const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
        const auto* source = static_cast<const typename D::T*>(a.x) + top * a.x_stride;
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t r = part_of(0, rows, t, tiles), m = part_of(0, rows, t + 1, tiles) - r;
            turn_rows<Words>(source + r * a.x_stride, a.x_stride, int(m), a.k, int(m), x + r * words);
        }
        for (int64_t r = 0; r < rows; ++r) group_sums<D>(source + r * a.x_stride, lay.groups, a.group, of_x + r * lay.groups);
        for (int64_t p = first; p < last; ++p) {
            const int vectors = panels.vectors(int(p));
            const int64_t column = int64_t(panels.first(int(p))) * width, wide = vectors * width;
            const int64_t columns = a.n - column < wide ? a.n - column : wide;
            const uint8_t* panel = weight + column * (lay.k / 2);
            for (int64_t g = 0; g < lay.groups; ++g) {
                for (int64_t c = 0; c < chunks; ++c) {
                    const int64_t at = part_of(0, in_group, c, chunks), count = part_of(0, in_group, c + 1, chunks) - at;
                    const uint8_t* bytes = panel + (g * in_group + at) * wide;
                    const int64_t k = (g * in_group + at) * words_a_byte, steps = count * words_a_byte;
                    const char* next = reinterpret_cast<const char*>(bytes + 4 * count * wide);  // some chunks ahead
                    const int64_t lines = (count * wide / 64 + tiles - 1) / tiles;
                    const auto run = [&](auto kind, const auto* b) {
                        for (int64_t t = 0; t < tiles; ++t) {
                            const int64_t r = part_of(0, rows, t, tiles), m = part_of(0, rows, t + 1, tiles) - r;
                            product_of<decltype(kind)>(int(m), vectors)(x + r * words + k * m, b, steps, sums + r * ldc, ldc, c > 0, next + t * lines * 64, lines);
                        }
                    };
#if defined(__AVX512BF16__)
                    if constexpr (std::is_same_v<Words, PairWords>) {
                        if (tiles <= tiles_read_straight) {
                            run(ByteWords(), bytes);
                            continue;
                        }
                    }
#endif
                    words_of_bytes(Words(), bytes, count, wide, room);
                    run(Words(), static_cast<const Word*>(room));
                }
                const uint8_t *scales = lay.scales(weight) + 4 * (column * lay.groups + g * wide), *zeros = lay.zeros(weight) + column * lay.groups + g * wide;
                for (int64_t v = 0; v < wide; v += width) {
                    const V scale = load(reinterpret_cast<const float*>(scales + 4 * v)), zero = bytes_as_floats(zeros + v);
                    for (int64_t r = 0; r < rows; ++r) {
                        const V sum = load(sums + r * ldc + v) - zero * set1(of_x[r * lay.groups + g]);
                        float* to = totals + r * ldc + v;
                        store(to, g ? fma(sum, scale, load(to)) : sum * scale);
                    }
                }
            }
            finish<D>(a, top, rows, column, columns, totals, ldc);
        }
    }
    return true;
}

}  // namespace QX_NS
}  // namespace qx
