// act(x + bias), element by element.
#pragma once
#include "io.h"
#include "vecmath.h"

namespace qx {
namespace QX_NS {

template <class D, class P, class Fn>
static inline void activate_rows_by(const QxActivationArgs& a, int64_t begin, int64_t end, Fn&& act) {
    using T = typename D::T;
    const auto* bias = static_cast<const typename P::T*>(a.bias);
    for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
        T* out = static_cast<T*>(a.out) + r * a.out_stride;
        int64_t j = 0;
        if (bias) {
            for (; j + width <= a.size; j += width) D::store(out + j, act(D::load(x + j) + P::load(bias + j)));
        } else {
            for (; j + width <= a.size; j += width) D::store(out + j, act(D::load(x + j)));
        }
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
        case QX_GELU_ERF: return activate_rows_by<D, P>(a, begin, end, [](V x) { return gelu_erf(x); });
        case QX_GELU_TANH: return activate_rows_by<D, P>(a, begin, end, [](V x) { return gelu_tanh(x); });
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
