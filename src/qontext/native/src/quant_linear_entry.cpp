// The C entry points of eight-bit linear layers: packing of weights, and products in one part a thread.
#include "dispatch.h"
#include "linear_parts.h"

using namespace qx;

namespace {

constexpr double grain_operations = 3e6;

// A row becomes bytes in as many cycles as some three vectors of products take. Weights are a quarter of those in floats:
// from some 32 rows on (Zen 4) it does not show that every thread reads all of them, and rows that stay with their thread
// from layer to layer are near it.
constexpr PartCosts costs = {3.0, 18.0, 32.0};

}  // namespace

int64_t qx_quant_linear_bytes(const QxQuantLinear* a) { return kernels_of(a->isa).quant_linear->bytes(*a); }

int64_t qx_quant_linear_pack(const QxQuantLinear* a, int64_t threads) {
    const QuantLinearKernels& k = *kernels_of(a->isa).quant_linear;
    for_rows(panels_of(k, a->n), a->n * a->k, 1 << 16, int(threads), [&](int64_t first, int64_t last) { k.pack(*a, a->out, first, last); });
    return QX_OK;
}

int64_t qx_quant_linear(const QxQuantLinear* a, int64_t threads) {
    return run_in_parts(*a, *kernels_of(a->isa).quant_linear, threads, grain_operations, costs);
}
