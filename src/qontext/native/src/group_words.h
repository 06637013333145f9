// Weights of four bits: two values a byte, whole numbers that are (value - zero) * scale, with a scale and a zero for each
// group of values that follow each other along K. A chunk of a panel becomes floats in the nearest cache before it is used.
#pragma once
#include "api.h"
#include "linear_tile.h"

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

// The low and the high halves of `width` bytes, and bytes themselves, as floats.
static inline void halves_of(const uint8_t* p, V& low, V& high) {
#if defined(QX_USE_AVX512)
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    low = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
    high = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
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

// Two rows of values as the words of a product.
static inline void store_words(const FloatWords&, float* to, int64_t columns, V even, V odd) {
    store(to, even);
    store(to + columns, odd);
}
#if defined(__AVX512BF16__)
static inline void store_words(const PairWords&, Word32* to, int64_t, V even, V odd) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
#endif

// Where a product finds the words of its weights: in memory as they are, or made of four bits in `room`.
template <class Words>
struct WholeWeights {
    using Word = typename Words::Word;
    static constexpr int64_t most_words = 512;  // along K: a chunk of weights and a tile of x fit beside each other
    static constexpr int64_t room_words = 0;
    const QxLinear& a;
    const int64_t words;
    explicit WholeWeights(const QxLinear& args) : a(args), words(Words::words(args.k)) {}
    const char* place(int64_t column, int64_t columns, int64_t k) const { return reinterpret_cast<const char*>(static_cast<const Word*>(a.weight) + column * words + k * columns); }
    const Word* take(int64_t column, int64_t columns, int64_t k, int64_t, Word*) const { return reinterpret_cast<const Word*>(place(column, columns, k)); }
};

template <class Words>
struct GroupWeights {
    using Word = typename Words::Word;
    static constexpr int64_t most_words = 128;  // a chunk of floats fits the nearest cache
    static constexpr int64_t room_words = (most_words + 2) * tile_vectors * width;
    static constexpr int64_t words_a_pair = Words::words(2) == 1 ? 1 : 2;  // that hold two values
    const QxLinear& a;
    const GroupLayout lay;
    explicit GroupWeights(const QxLinear& args) : a(args), lay(args) {}
    const uint8_t* bytes() const { return static_cast<const uint8_t*>(a.weight); }
    const char* place(int64_t column, int64_t columns, int64_t k) const { return reinterpret_cast<const char*>(bytes() + column * (lay.k / 2) + k / words_a_pair * columns); }

    // Words [k, k + steps) of a panel; both even where a word holds one value.
    const Word* take(int64_t column, int64_t columns, int64_t k, int64_t steps, Word* room) const {
        const uint8_t* from = reinterpret_cast<const uint8_t*>(place(column, columns, k));
        const uint8_t *scales = lay.scales(bytes()) + 4 * column * lay.groups, *zeros = lay.zeros(bytes()) + column * lay.groups;
        const int64_t first = k / words_a_pair, last = (k + steps) / words_a_pair, in_group = a.group / 2;
        for (int64_t c = 0; c < columns; c += width) {
            for (int64_t j = first; j < last;) {
                const int64_t g = j / in_group, end = (g + 1) * in_group < last ? (g + 1) * in_group : last;
                const V scale = load(reinterpret_cast<const float*>(scales + 4 * (g * columns + c)));
                const V moved = set1(0.0f) - bytes_as_floats(zeros + g * columns + c) * scale;
                for (; j < end; ++j) {
                    V low, high;
                    halves_of(from + (j - first) * columns + c, low, high);
                    store_words(Words(), room + (j - first) * words_a_pair * columns + c, columns, fma(low, scale, moved), fma(high, scale, moved));
                }
            }
        }
        return room;
    }
};

}  // namespace QX_NS
}  // namespace qx
