// exp2, tanh and sigmoid on vectors. Coefficients are minimax fits of this project.
#pragma once
#include "vec.h"

namespace qx {
namespace QX_NS {

constexpr float log2_e = 1.4426950408889634f;

// 2^x with a relative error of 1e-7 (Terms 5) or 1e-4 (Terms 3, enough for a bfloat16 result); 0 for -inf, NaN for NaN.
// Results over 2^126 are at least 2^126, or infinite.
template <int Terms = 5>
static inline V exp2(V x) {
    static_assert(Terms == 3 || Terms == 5, "two polynomials are fitted");
#if defined(QX_USE_AVX512)
    const V r = fraction(x);  // in [0, 1)
    V p;
    if constexpr (Terms == 3) {
        p = fma(set1(0.0770670622587204f), r, set1(0.22764496505260468f));
        p = fma(p, r, set1(0.6951168179512024f));
    } else {
        p = fma(set1(0.0018671303987503052f), r, set1(0.009017029777169228f));
        p = fma(p, r, set1(0.05579991266131401f));
        p = fma(p, r, set1(0.24016444385051727f));
        p = fma(p, r, set1(0.6931512951850891f));
    }
    return scale_by_floor(fma(p, r, set1(1.0f)), x);
#else
    const V magic = set1(12582912.0f);  // 1.5 * 2^23: adding it leaves round(x) in the low bits
    x = max(set1(-127.0f), min(set1(126.0f), x));  // at -127 the result is 0 exactly
    const V t = x + magic;
    const V r = x - (t - magic);  // in [-1/2, 1/2]
    V p;
    if constexpr (Terms == 3) {
        p = fma(set1(0.05500893294811249f), r, set1(0.2422109693288803f));
        p = fma(p, r, set1(0.6932829022407532f));
    } else {
        p = fma(set1(0.001326472731307149f), r, set1(0.009671512991189957f));
        p = fma(p, r, set1(0.05550733581185341f));
        p = fma(p, r, set1(0.24022242426872253f));
        p = fma(p, r, set1(0.6931470036506653f));
    }
    return scale_by_power(fma(p, r, set1(1.0f)), t);
#endif
}

// 1 / (1 + exp(-x))
static inline V sigmoid(V x) {
    const V e = exp2(min(set1(126.0f), x * set1(-log2_e)));
    return reciprocal(set1(1.0f) + e);
}

static inline V silu(V x) { return x * sigmoid(x); }

// tanh: a polynomial near zero, where 1 - 2 / (1 + exp(2 x)) would cancel.
static inline V tanh(V x) {
    const V a = abs(x), z = x * x;
    V p = fma(set1(0.01643747f), z, set1(-0.05267176f));
    p = fma(p, z, set1(0.13320724f));
    p = fma(p, z, set1(-0.33332947f));
    const V near_zero = fma(p * z, x, x);
    const V e = exp2(a * set1(-2.0f * log2_e));
    const V far = (set1(1.0f) - e) * reciprocal(set1(1.0f) + e);
    const V signed_far = choose_negative(x, set1(0.0f) - far, far);
    return choose_negative(a - set1(0.5f), near_zero, signed_far);
}

}  // namespace QX_NS
}  // namespace qx
