// Attention of a few rows, as when tokens are generated one by one: keys and values are read where they lie, since packing
// them would take longer than using them.
#pragma once
#include "attention_float.h"

namespace qx {
namespace QX_NS {

template <class D>
struct DirectCore : FloatCore<D> {
    using typename FloatCore<D>::T;
    using typename FloatCore<D>::Word;

    // What stands in place of a packed matrix.
    struct Place {
        const T* at;
        int64_t token;
    };

    static void pack_keys(const T* k, int64_t token, int64_t, int64_t, Word* to) { note(k, token, to); }
    static void pack_values(const T* v, int64_t token, int64_t, int64_t, Word* to) { note(v, token, to); }

    static void note(const T* at, int64_t token, Word* to) {
        const Place place = {at, token};
        std::memcpy(to, &place, sizeof place);
    }
    static Place noted(const Word* from) {
        Place place;
        std::memcpy(&place, from, sizeof place);
        return place;
    }

    // Rows of keys and values are far apart: processors do not fetch them ahead by themselves.
    static constexpr int64_t ahead = 24;

    static void fetch(const T* row, int64_t size) {
        for (int64_t d = 0; d < size; d += 64 / int64_t(sizeof(T))) __builtin_prefetch(row + d);
    }

    // Sixteen keys (or as many as a vector has lanes) at a time: one sum of lanes each, folded into one vector.
    static void scores(int64_t rows, const Word* q, int64_t ldq, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo) {
        const Place place = noted(packed);
        const int64_t whole = size - size % width;
        const int rest = int(size - whole);
        for (int64_t j = begin; j < end; j += width) {
            const int there = int(keys - j < width ? keys - j : width);
            for (int64_t r = 0; r < rows; ++r) {
                const Word* query = q + r * ldq;
                V sums[width];
                for (int i = 0; i < width; ++i) sums[i] = set1(0);
                for (int i = 0; i < there; ++i) {
                    const T* key = place.at + (j + i) * place.token;
                    if (r == 0) fetch(key + ahead * place.token, size);
                    for (int64_t d = 0; d < whole; d += width) sums[i] = fma(load(query + d), D::load(key + d), sums[i]);
                    if (rest) sums[i] = fma(load_part(query + whole, rest), D::load_part(key + whole, rest), sums[i]);
                }
                store(out + r * ldo + j, fold(sums, [](V x, V y) { return x + y; }));
            }
        }
    }

    static void values(int64_t rows, const Word* probabilities, int64_t ldp, const Word* packed, int64_t, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo, bool add) {
        const Place place = noted(packed);
        for (int64_t r = 0; r < rows; ++r) {
            const Word* p = probabilities + r * ldp;
            float* to = out + r * ldo;
            int64_t c = 0;
            for (; c + 4 * width <= size; c += 4 * width) columns<4>(place, p, c, begin, end, to, add);
            for (; c + width <= size; c += width) columns<1>(place, p, c, begin, end, to, add);
            if (const int rest = int(size - c)) {
                V sum = add ? load(to + c) : set1(0);
                for (int64_t j = begin; j < end; ++j) sum = fma(set1(p[j]), D::load_part(place.at + j * place.token + c, rest), sum);
                store(to + c, sum);
            }
        }
    }

    template <int N>
    static void columns(const Place& place, const Word* p, int64_t c, int64_t begin, int64_t end, float* to, bool add) {
        V sums[N];
        for (int n = 0; n < N; ++n) sums[n] = add ? load(to + c + n * width) : set1(0);
        for (int64_t j = begin; j < end; ++j) {
            const T* value = place.at + j * place.token + c;
            const V weight = set1(p[j]);
            fetch(value + ahead * place.token, N * width);
            for (int n = 0; n < N; ++n) sums[n] = fma(weight, D::load(value + n * width), sums[n]);
        }
        for (int n = 0; n < N; ++n) store(to + c + n * width, sums[n]);
    }
};

}  // namespace QX_NS
}  // namespace qx
