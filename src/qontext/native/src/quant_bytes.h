// Eight-bit operands of a quantised product. Four values that follow each other along K are one 32-bit word: unsigned in
// x, signed in weights. Sums are 32-bit integers, which travel in the lanes of V like any other bits.
#pragma once
#include "gemm.h"
#include "io.h"

namespace qx {
namespace QX_NS {

// How a row of x became bytes: x = (byte - zero) * scale.
struct RowScale {
    float scale;
    int32_t zero;
};

#if defined(QX_USE_AVX512)

struct ByteStep {
    using Word = uint32_t;
    static V step(V sum, V b, Word a) {
        const __m512i s = _mm512_castps_si512(sum), w = _mm512_castps_si512(b), x = _mm512_set1_epi32(int(a));
#if defined(__AVX512VNNI__)
        return _mm512_castsi512_ps(_mm512_dpbusd_epi32(s, x, w));
#else
        // Products of bytes are summed in 32 bits: the instruction that sums them in 16 bits saturates.
        const __m512i even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(255)), _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8));
        const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), _mm512_srai_epi16(w, 8));
        return _mm512_castsi512_ps(_mm512_add_epi32(s, _mm512_add_epi32(even, odd)));
#endif
    }
    static V load_b(const Word* p) { return _mm512_loadu_ps(p); }
};

// sum - zero * columns, as floats.
static inline V centred(V sum, V columns, int32_t zero) {
    const __m512i lost = _mm512_mullo_epi32(_mm512_set1_epi32(zero), _mm512_castps_si512(columns));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sum), lost));
}

// 4 * width values that are rounded, moved by `zero` and cut to 0..255.
static inline void store_bytes(uint8_t* to, const V* values, int32_t zero) {
    const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(values[0]), _mm512_cvtps_epi32(values[1]));
    const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(values[2]), _mm512_cvtps_epi32(values[3]));
    const __m512i move = _mm512_set1_epi16(int16_t(zero));
    const __m512i bytes = _mm512_packus_epi16(_mm512_add_epi16(low, move), _mm512_add_epi16(high, move));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, bytes));
}

#elif defined(QX_USE_AVX2)

struct ByteStep {
    using Word = uint32_t;
    static V step(V sum, V b, Word a) {
        const __m256i s = _mm256_castps_si256(sum), w = _mm256_castps_si256(b), x = _mm256_set1_epi32(int(a));
        const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
        const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
        return _mm256_castsi256_ps(_mm256_add_epi32(s, _mm256_add_epi32(even, odd)));
    }
    static V load_b(const Word* p) { return load(reinterpret_cast<const float*>(p)); }
};

static inline V centred(V sum, V columns, int32_t zero) {
    const __m256i lost = _mm256_mullo_epi32(_mm256_set1_epi32(zero), _mm256_castps_si256(columns));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_castps_si256(sum), lost));
}

static inline void store_bytes(uint8_t* to, const V* values, int32_t zero) {
    const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(values[0]), _mm256_cvtps_epi32(values[1]));
    const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(values[2]), _mm256_cvtps_epi32(values[3]));
    const __m256i move = _mm256_set1_epi16(int16_t(zero));
    const __m256i bytes = _mm256_packus_epi16(_mm256_add_epi16(low, move), _mm256_add_epi16(high, move));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
}

#else

struct ByteStep {
    using Word = uint32_t;
    static V step(V sum, V b, Word a) {
        uint8_t x[4];
        int8_t w[4 * width];
        int32_t sums[width];
        std::memcpy(x, &a, 4);
        std::memcpy(w, &b, sizeof w);
        std::memcpy(sums, &sum, sizeof sums);
        for (int i = 0; i < width; ++i)
            for (int j = 0; j < 4; ++j) sums[i] += int32_t(x[j]) * int32_t(w[4 * i + j]);
        std::memcpy(&sum, sums, sizeof sums);
        return sum;
    }
    static V load_b(const Word* p) {
        V v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
};

static inline V centred(V sum, V columns, int32_t zero) {
    int32_t sums[width], of[width];
    std::memcpy(sums, &sum, sizeof sums);
    std::memcpy(of, &columns, sizeof of);
    V v;
    for (int i = 0; i < width; ++i) v[i] = float(sums[i] - zero * of[i]);
    return v;
}

static inline void store_bytes(uint8_t* to, const V* values, int32_t zero) {
    for (int i = 0; i < 4 * width; ++i) {
        const int32_t byte = int32_t(std::lrintf(values[i / width][i % width])) + zero;
        to[i] = uint8_t(byte < 0 ? 0 : byte > 255 ? 255 : byte);
    }
}

#endif

// Values of a row of x: all of them, or each multiplied by the factor of its column.
template <class D>
struct PlainRow {
    const typename D::T* row;
    V operator()(int64_t k) const { return D::load(row + k); }
    V part(int64_t k, int there) const { return D::load_part(row + k, there); }
};
template <class D>
struct ScaledRow {
    const typename D::T* row;
    const float* factor;
    V operator()(int64_t k) const { return D::load(row + k) * load(factor + k); }
    V part(int64_t k, int there) const { return D::load_part(row + k, there) * load_part(factor + k, there); }
};

// Scale and zero of a row whose range, with 0 in it, becomes 0..255. A NaN or infinity makes the scale a NaN.
template <class Row>
static inline RowScale scale_of_row(const Row row, int64_t size, float& inverse) {
    constexpr int chains = 4;  // what is found in one vector does not wait for the one before
    V low[chains], high[chains], bad[chains];
    for (int i = 0; i < chains; ++i) low[i] = high[i] = bad[i] = set1(0.0f);
    const auto take = [&](int i, V v) {
        low[i] = min(v, low[i]);
        high[i] = max(v, high[i]);
        bad[i] = fma(v, set1(0.0f), bad[i]);
    };
    int64_t k = 0;
    for (; k + chains * width <= size; k += chains * width) {
#pragma GCC unroll 4
        for (int i = 0; i < chains; ++i) take(i, row(k + i * width));
    }
    for (; k + width <= size; k += width) take(0, row(k));
    if (k < size) take(0, row.part(k, int(size - k)));
    for (int i = 1; i < chains; ++i) {
        low[0] = min(low[i], low[0]);
        high[0] = max(high[i], high[0]);
        bad[0] = bad[0] + bad[i];
    }
    const float least = -largest(set1(0.0f) - low[0]), range = largest(high[0]) - least, not_finite = sum(bad[0]);
    const bool empty = !(range >= 1e-30f);  // nothing that a float32 scale could hold: all zeros
    inverse = empty ? 0.0f : 255.0f / range;
    const float moved = -least * inverse;
    return {(empty ? 1.0f : range / 255.0f) + not_finite, int32_t(std::lrintf(not_finite == 0.0f ? moved : 0.0f))};
}

// The bytes of a row. Bytes from `size` to the next multiple of 4 * width are written too. With a scale that is `given`,
// values are cut to its range, and the result is a NaN where the row holds a NaN or infinity; else it is 0.
template <bool given, class Row>
static inline float bytes_of_row(const Row row, int64_t size, float inverse, int32_t zero, uint8_t* to) {
    const V scale = set1(inverse), most = set1(1024.0f), least = set1(-1024.0f);  // beyond, all is cut to 0 or 255
    V bad[4];
    for (int i = 0; i < 4; ++i) bad[i] = set1(0.0f);
    const auto scaled = [&](int i, V v) {
        if constexpr (!given) return v * scale;
        bad[i] = fma(v, set1(0.0f), bad[i]);
        return min(max(v * scale, least), most);
    };
    int64_t k = 0;
    for (; k + 4 * width <= size; k += 4 * width) {
        V values[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) values[i] = scaled(i, row(k + i * width));
        store_bytes(to + k, values, zero);
    }
    if (k < size) {
        V values[4];
        for (int i = 0; i < 4; ++i) {
            const int64_t at = k + i * width, left = size - at;
            values[i] = scaled(i, left >= width ? row(at) : left > 0 ? row.part(at, int(left)) : set1(0.0f));
        }
        store_bytes(to + k, values, zero);
    }
    return sum((bad[0] + bad[1]) + (bad[2] + bad[3]));
}

// A row of x as bytes at `to`: by the scale and zero of the call, or by its own.
template <class Row>
static inline RowScale quantise_row(const QxQuantLinear& a, const Row row, uint8_t* to) {
    if (a.x_zero < 0) {
        float inverse;
        const RowScale mine = scale_of_row(row, a.k, inverse);
        bytes_of_row<false>(row, a.k, inverse, mine.zero, to);
        return mine;
    }
    const float scale = float(a.x_scale);
    return {scale + bytes_of_row<true>(row, a.k, 1.0f / scale, int32_t(a.x_zero), to), int32_t(a.x_zero)};
}

}  // namespace QX_NS
}  // namespace qx
