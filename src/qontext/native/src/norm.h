// Layer norm and RMS norm of rows: add what is to be added, keep the sum in cache, two exact passes, one write.
#pragma once
#include "io.h"

namespace qx {
namespace QX_NS {

// Normalises `row` (fp32, `size` values) into `out`. The variance is taken around the mean, not as E[x^2] - mean^2.
template <class D, class P>
static inline void normalise_row(const float* row, int64_t size, const void* gamma_at, const void* beta_at, float eps, bool rms,
                                 float total, typename D::T* out) {
    const auto* gamma = static_cast<const typename P::T*>(gamma_at);
    const auto* beta = static_cast<const typename P::T*>(beta_at);
    const int64_t whole = size - size % width;
    const int rest = int(size - whole);
    const V mean = set1(rms ? 0.0f : total / float(size));
    V square0 = set1(0), square1 = set1(0);
    int64_t j = 0;
    for (; j + 2 * width <= whole; j += 2 * width) {
        const V a = load(row + j) - mean, b = load(row + j + width) - mean;
        square0 = fma(a, a, square0);
        square1 = fma(b, b, square1);
    }
    for (; j < whole; j += width) {
        const V a = load(row + j) - mean;
        square0 = fma(a, a, square0);
    }
    if (rest) {
        const V a = first(load_part(row + j, rest) - mean, set1(0), rest);
        square1 = fma(a, a, square1);
    }
    const float variance = sum(square0 + square1) / float(size);
    const V inverse = set1(1.0f / std::sqrt(variance + eps));
    const auto finish = [&](V x, V g, V b) { return fma((x - mean) * inverse, g, b); };
    const V one = set1(1.0f), zero = set1(0.0f);
    if (gamma && beta) {
        for (j = 0; j < whole; j += width) D::store(out + j, finish(load(row + j), P::load(gamma + j), P::load(beta + j)));
    } else {
        for (j = 0; j < whole; j += width)
            D::store(out + j, finish(load(row + j), gamma ? P::load(gamma + j) : one, beta ? P::load(beta + j) : zero));
    }
    if (rest) {
        const V g = gamma ? P::load_part(gamma + j, rest) : one, b = beta ? P::load_part(beta + j, rest) : zero;
        D::store_part(out + j, finish(load_part(row + j, rest), g, b), rest);
    }
}

// row = x + skip + bias; returns the sum of the row.
template <class D, class P>
static inline float add_rows(const typename D::T* x, const typename D::T* skip, const typename P::T* bias, int64_t size, float* row) {
    V total0 = set1(0), total1 = set1(0);
    int64_t j = 0;
    const auto whole = [&](int64_t at) {
        V v = D::load(x + at);
        if (skip) v = v + D::load(skip + at);
        if (bias) v = v + P::load(bias + at);
        store(row + at, v);
        return v;
    };
    for (; j + 2 * width <= size; j += 2 * width) {
        total0 = total0 + whole(j);
        total1 = total1 + whole(j + width);
    }
    for (; j + width <= size; j += width) total0 = total0 + whole(j);
    if (const int rest = int(size - j)) {
        V v = D::load_part(x + j, rest);
        if (skip) v = v + D::load_part(skip + j, rest);
        if (bias) v = v + P::load_part(bias + j, rest);
        store_part(row + j, v, rest);
        total1 = total1 + v;
    }
    return sum(total0 + total1);
}

template <class D, class P>
static void norm_rows_as(const QxNorm& a, int64_t begin, int64_t end, float* row) {
    using T = typename D::T;
    for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
        const T* skip = a.skip ? static_cast<const T*>(a.skip) + r * a.skip_stride : nullptr;
        const float total = add_rows<D, P>(x, skip, static_cast<const typename P::T*>(a.bias), a.size, row);
        if (a.sum_out) {
            T* out = static_cast<T*>(a.sum_out) + r * a.sum_stride;
            int64_t j = 0;
            for (; j + width <= a.size; j += width) D::store(out + j, load(row + j));
            if (const int rest = int(a.size - j)) D::store_part(out + j, load_part(row + j, rest), rest);
        }
        normalise_row<D, P>(row, a.size, a.gamma, a.beta, float(a.eps), a.rms != 0, total, static_cast<T*>(a.out) + r * a.out_stride);
    }
}

static void norm_rows(const QxNorm& a, int64_t begin, int64_t end, float* row) {
    with_type(a.dtype, [&](auto d) {
        with_type(a.param_dtype, [&](auto p) { norm_rows_as<decltype(d), decltype(p)>(a, begin, end, row); });
    });
}

static inline int64_t index_at(const void* p, int64_t bytes, int64_t i) {
    return bytes == 8 ? static_cast<const int64_t*>(p)[i] : static_cast<const int32_t*>(p)[i];
}

// The ids were checked by the caller.
template <class D, class P>
static void embed_rows_as(const QxEmbed& a, int64_t begin, int64_t end, float* row) {
    using T = typename D::T;
    for (int64_t t = begin; t < end; ++t) {
        const T* parts[3];
        int count = 0;
        parts[count++] = static_cast<const T*>(a.word) + index_at(a.ids, a.ids_bytes, t) * a.size;
        if (a.position) {
            const int64_t at = a.positions ? index_at(a.positions, a.positions_bytes, t) : a.position_offset + t % a.period;
            parts[count++] = static_cast<const T*>(a.position) + at * a.size;
        }
        if (a.type) parts[count++] = static_cast<const T*>(a.type) + (a.types ? index_at(a.types, a.types_bytes, t) : 0) * a.size;
        float total = add_rows<D, D>(parts[0], count > 1 ? parts[1] : nullptr, count > 2 ? parts[2] : nullptr, a.size, row);
        normalise_row<D, P>(row, a.size, a.gamma, a.beta, float(a.eps), false, total, static_cast<T*>(a.out) + t * a.size);
    }
}

static void embed_rows(const QxEmbed& a, int64_t begin, int64_t end, float* row) {
    with_type(a.dtype, [&](auto d) {
        with_type(a.param_dtype, [&](auto p) { embed_rows_as<decltype(d), decltype(p)>(a, begin, end, row); });
    });
}

}  // namespace QX_NS
}  // namespace qx
