// The C entry points of eight-bit linear layers: packing of weights, and products in one part a thread.
#include "dispatch.h"
#include "linear_parts.h"

using namespace qx;

namespace {

constexpr double grain_operations = 3e6;

}  // namespace

int64_t qx_quant_linear_bytes(const QxQuantLinear* a) { return kernels_of(a->isa).quant_linear->bytes(*a); }

int64_t qx_quant_linear_pack(const QxQuantLinear* a, int64_t threads) {
    const QuantLinearKernels& k = *kernels_of(a->isa).quant_linear;
    for_rows(panels_of(k, a->n), a->n * a->k, 1 << 16, int(threads), [&](int64_t first, int64_t last) { k.pack(*a, a->out, first, last); });
    return QX_OK;
}

int64_t qx_quant_linear(const QxQuantLinear* a, int64_t threads) {
    // A row becomes bytes in as many cycles as some three vectors of products take.
    return run_in_parts(*a, *kernels_of(a->isa).quant_linear, threads, grain_operations, 3.0);
}
