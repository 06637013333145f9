// The C entry points of linear layers: packing of weights, and the cut of a product into one part a thread.
#include "dispatch.h"
#include "parallel.h"

#include <atomic>

using namespace qx;

namespace {

// Below this many operations a second thread costs more than it brings.
constexpr double grain_flops = 1e6;

struct Cut {
    int64_t rows, columns;  // parts along each axis
};

int64_t parts(int64_t n, int64_t of) { return (n + of - 1) / of; }

// The cut whose largest part takes the least time, in cycles a step of K: products, packing of its rows, and reading its
// weights from far away.
Cut cut_of(int64_t rows, int64_t panels, int64_t panel_vectors, int64_t threads) {
    constexpr double pack_row = 0.7, read_vector = 9.0;
    Cut best{1, 1};
    double least = 0;
    for (int64_t r = 1; r <= threads && r <= rows; ++r) {
        const int64_t c = threads / r < panels ? threads / r : panels;
        const double m = double(parts(rows, r)), v = double(parts(panels, c) * panel_vectors);
        const double time = m * v + pack_row * m + read_vector * v;
        if (r == 1 || time < least) {
            least = time;
            best = Cut{r, c};
        }
    }
    return best;
}

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
            const Cut cut = cut_of(x.a.rows, x.panels, x.k.vectors, count);
            const int64_t r = thread / cut.columns, c = thread % cut.columns;
            if (r >= cut.rows) return;
            const auto at = [](int64_t n, int64_t i, int64_t of) { return n * i / of; };
            const bool fine = x.k.part(x.a, at(x.a.rows, r, cut.rows), at(x.a.rows, r + 1, cut.rows), at(x.panels, c, cut.columns), at(x.panels, c + 1, cut.columns));
            if (!fine) x.ok.store(false, std::memory_order_relaxed);
        },
        &context);
    return context.ok ? QX_OK : QX_NO_MEMORY;
}
