// GELU, exact and by tanh. Where a register pair holds a table of 32, gelu(x) = max(x, 0) - |x| q(|x|) with q read from
// one: less than half the arithmetic of the closed forms.
#pragma once
#include "vecmath.h"
#if defined(QX_USE_AVX512)
#include "gelu_table.h"
#endif

namespace qx {
namespace QX_NS {

#if defined(QX_USE_AVX512)

// Errors: 3e-8 of |x|; relative to the result 1e-6 down to x = -3, 1e-4 down to -5; 0 below -6.1.
class TableGelu {
public:
    explicit TableGelu(const float (&table)[gelu_degree + 1][gelu_intervals]) {
        for (int k = 0; k <= gelu_degree; ++k) {
            low[k] = load(table[k]);
            high[k] = load(table[k] + width);
        }
    }

    V operator()(V x) const {
        const V last = set1((gelu_intervals - 1) / gelu_steps_per_unit), steps = set1(gelu_steps_per_unit);
        const V magic = set1(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
        const V a = min(last, abs(x));      // in this order a NaN stays
        const V place = fma(a, steps, magic);
        const V t = fma(a, steps, magic - place);
        V q = look_up(low[gelu_degree], high[gelu_degree], place);
        for (int k = gelu_degree - 1; k >= 0; --k) q = fma(q, t, look_up(low[k], high[k], place));
        return fma(set1(0.0f) - a, q, max(set1(0.0f), x));
    }

private:
    V low[gelu_degree + 1], high[gelu_degree + 1];
};

struct GeluErf : TableGelu {
    GeluErf() : TableGelu(lost_by_erf) {}
};
struct GeluTanh : TableGelu {
    GeluTanh() : TableGelu(lost_by_tanh) {}
};

#else

// The tail is exp(-x^2/2) times a polynomial in 1/(1 + 0.3 |x|): no cancellation for x < 0.
struct GeluErf {
    V operator()(V x) const {
        const V a = min(set1(14.0f), abs(x));  // in this order a NaN stays
        const V t = reciprocal(fma(a, set1(0.3f), set1(1.0f)));
        V g = fma(set1(0.03567460551857948f), t, set1(-0.15720230340957642f));
        g = fma(g, t, set1(0.20635206997394562f));
        g = fma(g, t, set1(-0.053682271391153336f));
        g = fma(g, t, set1(0.128560870885849f));
        g = fma(g, t, set1(0.09991373121738434f));
        g = fma(g, t, set1(0.12075392156839371f));
        g = fma(g, t, set1(0.11962930858135223f));
        const V square = a * a;
        const V lost = fma(a, a, set1(0.0f) - square);  // what rounding took from the square
        const V tail = exp2(square * set1(-0.5f * log2_e));
        const V q = g * t * fma(lost * set1(-0.5f), tail, tail);
        const V below = set1(0.0f) - a * q;
        return choose_negative(x, below, x + below);
    }
};

// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) is x sigmoid of twice the argument.
struct GeluTanh {
    V operator()(V x) const {
        const V cube = x * x * x;
        return x * sigmoid(fma(cube, set1(0.07135481627f), x * set1(1.5957691216f)));
    }
};

#endif

}  // namespace QX_NS
}  // namespace qx
