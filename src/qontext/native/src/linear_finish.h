// What follows the product of a linear layer, on sums that are still near: bias, activation, residual, rounding.
#pragma once
#include "gelu.h"
#include "io.h"

namespace qx {
namespace QX_NS {

template <class D, class Fn>
static inline void finish_by(const QxLinear& a, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t ld, const Fn act) {
    using T = typename D::T;
    const T* bias = static_cast<const T*>(a.bias);
    const T* residual = static_cast<const T*>(a.residual);
    T* out = static_cast<T*>(a.out) + row * a.out_stride + column;
    if (residual) residual += row * a.residual_stride + column;
    for (int64_t j = 0; j < columns; j += width) {
        const int there = int(columns - j < width ? columns - j : width);
        if (there == width) {
            const V b = bias ? D::load(bias + column + j) : set1(0.0f);
            for (int64_t r = 0; r < rows; ++r) {
                V v = act(load(sums + r * ld + j) + b);
                if (residual) v = v + D::load(residual + r * a.residual_stride + j);
                D::store(out + r * a.out_stride + j, v);
            }
        } else {
            const V b = bias ? D::load_part(bias + column + j, there) : set1(0.0f);
            for (int64_t r = 0; r < rows; ++r) {
                V v = act(load(sums + r * ld + j) + b);
                if (residual) v = v + D::load_part(residual + r * a.residual_stride + j, there);
                D::store_part(out + r * a.out_stride + j, v, there);
            }
        }
    }
}

// Rows [row, row + rows) and columns [column, column + columns) of the result from their sums.
template <class D>
static void finish(const QxLinear& a, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t ld) {
    switch (a.activation) {
        case QX_GELU_ERF: return finish_by<D>(a, row, rows, column, columns, sums, ld, GeluErf());
        case QX_GELU_TANH: return finish_by<D>(a, row, rows, column, columns, sums, ld, GeluTanh());
        case QX_SILU: return finish_by<D>(a, row, rows, column, columns, sums, ld, [](V x) { return silu(x); });
        case QX_RELU: return finish_by<D>(a, row, rows, column, columns, sums, ld, [](V x) { return max(set1(0.0f), x); });
        default: return finish_by<D>(a, row, rows, column, columns, sums, ld, [](V x) { return x; });
    }
}

}  // namespace QX_NS
}  // namespace qx
