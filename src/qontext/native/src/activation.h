// act(x + bias), element by element.
#pragma once
#include "gelu.h"
#include "io.h"

namespace qx {
namespace QX_NS {

template <class D, class P, class Fn>
static inline void activate_rows_by(const QxActivationArgs& a, int64_t begin, int64_t end, const Fn act) {
    using T = typename D::T;
    const auto* bias = static_cast<const typename P::T*>(a.bias);
    for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
        T* out = static_cast<T*>(a.out) + r * a.out_stride;
        const auto one = [&](int64_t j) { return act(D::load(x + j)); };
        const auto biased = [&](int64_t j) { return act(D::load(x + j) + P::load(bias + j)); };
        const auto whole = [&](auto at) {
            int64_t j = 0;
            for (; j + 2 * width <= a.size; j += 2 * width) D::store_two(out + j, at(j), at(j + width));
            for (; j + width <= a.size; j += width) D::store(out + j, at(j));
            return j;
        };
        const int64_t j = bias ? whole(biased) : whole(one);
        if (const int rest = int(a.size - j)) {
            V v = D::load_part(x + j, rest);
            if (bias) v = v + P::load_part(bias + j, rest);
            D::store_part(out + j, act(v), rest);
        }
    }
}

template <class D, class P>
static void activate_rows_as(const QxActivationArgs& a, int64_t begin, int64_t end) {
    switch (a.kind) {
        case QX_GELU_ERF: return activate_rows_by<D, P>(a, begin, end, GeluErf());
        case QX_GELU_TANH: return activate_rows_by<D, P>(a, begin, end, GeluTanh());
        case QX_SILU: return activate_rows_by<D, P>(a, begin, end, [](V x) { return silu(x); });
        default: return activate_rows_by<D, P>(a, begin, end, [](V x) { return max(set1(0.0f), x); });
    }
}

static void activate_rows(const QxActivationArgs& a, int64_t begin, int64_t end) {
    with_type(a.dtype, [&](auto d) {
        if (a.bias_dtype == QX_F32 && a.dtype != QX_F32) return activate_rows_as<decltype(d), F32>(a, begin, end);
        activate_rows_as<decltype(d), decltype(d)>(a, begin, end);
    });
}

}  // namespace QX_NS
}  // namespace qx
