// A linear layer cut into one part a thread, whatever it multiplies.
#pragma once
#include "api.h"
#include "linear_cut.h"
#include "parallel.h"

#include <atomic>
#include <cstdint>

namespace qx {

template <class Kernels>
int64_t panels_of(const Kernels& k, int64_t n) { return parts(parts(n, k.width), k.vectors); }

// Runs `k.part` on the parts of layer `a`. Below `grain` operations a second thread costs more than it brings; `costs`
// are those of `cut_of`.
template <class Layer, class Kernels>
int64_t run_in_parts(const Layer& a, const Kernels& k, int64_t threads, double grain, const PartCosts& costs) {
    if (a.rows <= 0) return QX_OK;
    if (2.0 * double(a.rows) * double(a.n) * double(a.k) < grain) threads = 1;
    struct Context {
        const Layer& a;
        const Kernels& k;
        int64_t panels;
        PartCosts costs;
        std::atomic<bool> ok;
    } context{a, k, panels_of(k, a.n), costs, {true}};
    parallel(
        int(threads),
        [](void* p, int thread, int count) {
            Context& x = *static_cast<Context*>(p);
            const Cut cut = cut_of(x.a.rows, x.panels, x.k.vectors, count, x.costs);
            const int64_t r = thread / cut.columns, c = thread % cut.columns;
            if (r >= cut.rows) return;
            const auto at = [](int64_t n, int64_t i, int64_t of) { return n * i / of; };
            const bool fine = x.k.part(x.a, at(x.a.rows, r, cut.rows), at(x.a.rows, r + 1, cut.rows), at(x.panels, c, cut.columns), at(x.panels, c + 1, cut.columns));
            if (!fine) x.ok.store(false, std::memory_order_relaxed);
        },
        &context);
    return context.ok ? QX_OK : QX_NO_MEMORY;
}

}  // namespace qx
