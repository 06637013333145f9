// The C entry points of linear layers: packing of weights, and the cut of a product into one part a thread.
#include "dispatch.h"
#include "linear_cut.h"
#include "parallel.h"

#include <atomic>

using namespace qx;

namespace {

// Below this many operations a second thread costs more than it brings.
constexpr double grain_flops = 1e6;

int64_t panels_of(const LinearKernels& k, int64_t n) { return parts(parts(n, k.width), k.vectors); }

}  // namespace

int64_t qx_linear_bytes(const QxLinear* a) {
    const LinearKernels& k = *kernels_of(a->isa).linear;
    return parts(a->n, k.width) * k.width * k.words(a->dtype, a->k) * 4;
}

int64_t qx_linear_pack(const QxLinear* a, int64_t threads) {
    const LinearKernels& k = *kernels_of(a->isa).linear;
    for_rows(panels_of(k, a->n), a->n * a->k, 1 << 16, int(threads), [&](int64_t first, int64_t last) { k.pack(*a, a->out, first, last); });
    return QX_OK;
}

int64_t qx_linear(const QxLinear* a, int64_t threads) {
    if (a->rows <= 0) return QX_OK;
    const LinearKernels& k = *kernels_of(a->isa).linear;
    const int64_t panels = panels_of(k, a->n);
    if (2.0 * double(a->rows) * double(a->n) * double(a->k) < grain_flops) threads = 1;
    struct Context {
        const QxLinear& a;
        const LinearKernels& k;
        int64_t panels;
        std::atomic<bool> ok;
    } context{*a, k, panels, {true}};
    parallel(
        int(threads),
        [](void* p, int thread, int count) {
            Context& x = *static_cast<Context*>(p);
            const Cut cut = cut_of(x.a.rows, x.panels, x.k.vectors, count, 0.7);
            const int64_t r = thread / cut.columns, c = thread % cut.columns;
            if (r >= cut.rows) return;
            const auto at = [](int64_t n, int64_t i, int64_t of) { return n * i / of; };
            const bool fine = x.k.part(x.a, at(x.a.rows, r, cut.rows), at(x.a.rows, r + 1, cut.rows), at(x.panels, c, cut.columns), at(x.panels, c + 1, cut.columns));
            if (!fine) x.ok.store(false, std::memory_order_relaxed);
        },
        &context);
    return context.ok ? QX_OK : QX_NO_MEMORY;
}
