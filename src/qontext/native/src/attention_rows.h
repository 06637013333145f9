// Rows of scores before and after their exponentials: bias, mask, soft cap, largest values, sums.
#pragma once
#include <cmath>

#include "attention_plan.h"
#include "io.h"
#include "panels.h"
#include "vecmath.h"

namespace qx {
namespace QX_NS {

// Whether scores are used as they come from the product, times a positive factor.
static inline bool plain_scores(const QxAttention& a) { return !a.bias && !a.mask && a.softcap == 0.0 && a.scale > 0.0; }

// The largest value of each lane over n scores, a whole number of vectors.
static inline V largest_lanes(const float* row, int64_t n) {
    V m0 = set1(-INFINITY), m1 = m0;
    int64_t j = 0;
    for (; j + 2 * width <= n; j += 2 * width) {
        m0 = max(m0, load(row + j));
        m1 = max(m1, load(row + j + width));
    }
    if (j < n) m0 = max(m0, load(row + j));
    return max(m0, m1);
}

// out[r] = the lanes of vector r of `partial` combined. Both arrays reach to the next multiple of `width`.
template <class Combine>
static inline void combine_lanes(const float* partial, int64_t rows, float* out, Combine&& combine) {
    for (int64_t r = 0; r < rows; r += width) {
        V in[width];
        for (int i = 0; i < width; ++i) in[i] = load(partial + (r + i) * width);
        store(out + r, fold(in, combine));
    }
}

static inline void fill(float* row, int64_t begin, int64_t end, float value) {
    for (int64_t j = begin; j < end; ++j) row[j] = value;
}

static inline bool any_nan(const float* row, int64_t n) {
    for (int64_t j = 0; j < n; ++j)
        if (row[j] != row[j]) return true;
    return false;
}

// The bias of query i of head h for keys [key, key + n) as fp32; `spare` holds n floats for what is not fp32 in a line.
static inline const float* bias_row(const QxAttention& a, int64_t b, int64_t h, int64_t i, int64_t key, int64_t n, float* spare) {
    const int64_t at = b * a.bias_batch + h * a.bias_head + i * a.bias_q + key * a.bias_k;
    if (a.bias_dtype == QX_F32 && a.bias_k == 1) return static_cast<const float*>(a.bias) + at;
    with_type(a.bias_dtype, [&](auto type) {
        using D = decltype(type);
        const auto* from = static_cast<const typename D::T*>(a.bias) + at;
        if (a.bias_k == 1) {
            int64_t j = 0;
            for (; j + width <= n; j += width) store(spare + j, D::load(from + j));
            if (const int rest = int(n - j)) store_part(spare + j, D::load_part(from + j, rest), rest);
        } else {
            for (int64_t j = 0; j < n; ++j) store_part(spare + j, D::load_part(from + j * a.bias_k, 1), 1);
        }
    });
    return spare;
}

static inline const uint8_t* mask_row(const QxAttention& a, int64_t b, int64_t h, int64_t i, int64_t key, int64_t n, uint8_t* spare) {
    const uint8_t* from = a.mask + b * a.mask_batch + h * a.mask_head + i * a.mask_q + key * a.mask_k;
    if (a.mask_k == 1) return from;
    for (int64_t j = 0; j < n; ++j) spare[j] = from[j * a.mask_k];
    return spare;
}

// row = softcap(row * scale) + bias, -inf where the mask is zero.
static inline void transform_row(float* row, int64_t n, float scale, float softcap, const float* bias, const uint8_t* mask) {
    const V factor = set1(scale), cap = set1(softcap), per_cap = set1(softcap != 0.0f ? 1.0f / softcap : 0.0f);
    const auto one = [&](V x, int64_t j, int lanes) {
        x = x * factor;
        if (softcap != 0.0f) x = cap * tanh(x * per_cap);
        if (bias) x = x + (lanes == width ? load(bias + j) : load_part(bias + j, lanes));
        if (mask) x = hide(x, mask + j, lanes);
        return x;
    };
    int64_t j = 0;
    for (; j + width <= n; j += width) store(row + j, one(load(row + j), j, width));
    if (const int rest = int(n - j)) store_part(row + j, one(load_part(row + j, rest), j, rest), rest);
}

}  // namespace QX_NS
}  // namespace qx
