// Keys and values of eight bits written as bfloat16, which holds them exactly, to where they are multiplied from: keys
// token by token, values as pairs of two tokens, column by column.
#pragma once
#include <array>

#include "decode_pairs.h"

namespace qx {
namespace QX_NS {

#if defined(__AVX512BF16__)

// Whole numbers become floats, whose high halves are taken.
struct WidenWhole {
    static constexpr bool interleaves = false;

    // The high halves of the first vector's floats and then the second's, or by turns.
    static __m512i order(bool turns) {
        alignas(64) uint16_t words[32];
        for (int i = 0; i < 16; ++i) {
            words[turns ? 2 * i : i] = uint16_t(2 * i + 1);
            words[turns ? 2 * i + 1 : i + 16] = uint16_t(2 * i + 33);
        }
        return _mm512_load_si512(words);
    }
    static __m512i both(const int8_t* x, const int8_t* y, __m512i order) { return _mm512_permutex2var_epi16((__m512i)I8::load(x), order, (__m512i)I8::load(y)); }

    const __m512i in_line = order(false), by_turns = order(true);

    void key(const int8_t* from, int64_t size, uint16_t* to) const {
        for (int64_t d = 0; d < size; d += 32) _mm512_storeu_si512(to + d, both(from + d, from + d + 16, in_line));
    }
    void values(const int8_t* x, const int8_t* y, int64_t size, uint16_t* to) const {
        for (int64_t d = 0; d < size; d += 16) _mm512_storeu_si512(to + 2 * d, both(x + d, y + d, by_turns));
    }
};

// The magnitudes of e4m3, 0 to 127, as bfloat16: the byte `shift` bits up.
constexpr std::array<uint8_t, 128> e4m3_magnitudes(int shift) {
    std::array<uint8_t, 128> found{};
    for (int i = 1; i < 128; ++i) {
        const int exponent = i >> 3, fraction = i & 7;
        const int top = fraction >= 4 ? 2 : fraction >= 2 ? 1 : 0;  // of a number below the normal ones: its highest bit
        const int below = (top + 118) << 7 | ((fraction << (7 - top)) & 127);
        const int word = i == 127 ? 0x7fc0 : exponent ? (exponent + 120) << 7 | fraction << 4 : below;  // 127 is the one NaN
        found[size_t(i)] = uint8_t(word >> shift);
    }
    return found;
}
alignas(64) static constexpr std::array<uint8_t, 128> e4m3_low = e4m3_magnitudes(0), e4m3_high = e4m3_magnitudes(8);

// Floats of eight bits: either byte is looked up by its magnitude.
struct WidenE4m3 {
    static constexpr bool interleaves = true;

    const __m512i low[2] = {_mm512_load_si512(e4m3_low.data()), _mm512_load_si512(e4m3_low.data() + 64)};
    const __m512i high[2] = {_mm512_load_si512(e4m3_high.data()), _mm512_load_si512(e4m3_high.data() + 64)};

    // 64 columns, or 32 in the first half.
    void words(const uint8_t* p, bool whole, __m512i* out) const {
        const __m512i codes = whole ? _mm512_loadu_si512(p) : _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        const __m512i at = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
        const __m512i first = _mm512_permutex2var_epi8(low[0], at, low[1]), size = _mm512_permutex2var_epi8(high[0], at, high[1]);
        const __m512i second = _mm512_ternarylogic_epi64(at, _mm512_set1_epi8(int8_t(-128)), size, 0xea);  // its sign put on
        out[0] = _mm512_unpacklo_epi8(first, second);
        out[1] = _mm512_unpackhi_epi8(first, second);
    }
    void key(const uint8_t* from, int64_t size, uint16_t* to) const {
        for (int64_t d = 0; d < size; d += 64) {
            __m512i found[2];
            words(from + d, d + 32 < size, found);
            _mm512_storeu_si512(to + d, found[0]);
            if (d + 32 < size) _mm512_storeu_si512(to + d + 32, found[1]);
        }
    }
    void values(const uint8_t* x, const uint8_t* y, int64_t size, uint16_t* to) const {
        for (int64_t d = 0; d < size; d += 64) {
            __m512i first[2], second[2];
            words(x + d, d + 32 < size, first);
            words(y + d, d + 32 < size, second);
            store_two(first[0], second[0], to + 2 * d);
            if (d + 32 < size) store_two(first[1], second[1], to + 2 * d + 64);
        }
    }
    static void store_two(__m512i x, __m512i y, uint16_t* to) {
        __m512i pairs[2];
        interleave(x, y, pairs);
        _mm512_storeu_si512(to, pairs[0]);
        _mm512_storeu_si512(to + 32, pairs[1]);
    }
};

template <class C>
using Widen = std::conditional_t<std::is_same<C, I8>::value, WidenWhole, WidenE4m3>;

// Whether sums of values get out of order (decode_pairs.h).
template <class C>
constexpr bool interleaves_values() {
    if constexpr (holds_pairs<C>) return true;
    else return Widen<C>::interleaves;
}

// Keys to room [count][size]; `ahead` is called once a token.
template <class C, class Fn>
__attribute__((noinline)) static void widen_keys(const typename C::T* const* keys, int64_t offset, int64_t count, int64_t size, uint16_t* room, Fn&& ahead) {
    const Widen<C> widen;
    for (int64_t j = 0; j < count; ++j) {
        ahead();
        widen.key(keys[j] + offset, size, room + j * size);
    }
}

// Values to room [count / 2][size][2]; the last of an odd count goes with itself, and the weight beside it is zero.
template <class C, class Fn>
__attribute__((noinline)) static void widen_values(const typename C::T* const* values, int64_t offset, int64_t count, int64_t size, uint16_t* room, Fn&& ahead) {
    const Widen<C> widen;
    for (int64_t j = 0; j < count; j += 2) {
        ahead();
        ahead();
        widen.values(values[j] + offset, values[j + 1 < count ? j + 1 : j] + offset, size, room + j * size);
    }
}

#endif

}  // namespace QX_NS
}  // namespace qx
