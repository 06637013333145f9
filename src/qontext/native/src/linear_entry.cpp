// The C entry points of linear layers: packing of weights, and products in one part a thread.
#include "dispatch.h"
#include "linear_parts.h"

#include <cmath>

using namespace qx;

namespace {

constexpr double grain_flops = 1e6;
constexpr PartCosts costs = {0.7, 9.0, HUGE_VAL};

}  // namespace

int64_t qx_linear_bytes(const QxLinear* a) {
    const LinearKernels& k = *kernels_of(a->isa).linear;
    const int64_t columns = parts(a->n, k.width) * k.width, words = k.words(a->dtype, a->k);
    if (a->group && words) return columns * (a->k / 2 + a->k / a->group * 5);
    return columns * words * 4;
}

int64_t qx_linear_pack(const QxLinear* a, int64_t threads) {
    const LinearKernels& k = *kernels_of(a->isa).linear;
    for_rows(panels_of(k, a->n), a->n * a->k, 1 << 16, int(threads), [&](int64_t first, int64_t last) { k.pack(*a, a->out, first, last); });
    return QX_OK;
}

int64_t qx_linear(const QxLinear* a, int64_t threads) {
    return run_in_parts(*a, *kernels_of(a->isa).linear, threads, grain_flops, costs);
}
