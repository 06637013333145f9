// The C entry points of eight-bit linear layers: packing of weights, and products in one part a thread.
#include "dispatch.h"
#include "linear_cut.h"
#include "linear_parts.h"
#include "scratch.h"

using namespace qx;

namespace {

constexpr double grain_operations = 3e6;
// A row becomes bytes in as many cycles as some three vectors of products take.
constexpr double make_row = 3.0;
// Rows in bytes that all threads share: more than this would not stay near, and are cut by rows anyway.
constexpr int64_t most_shared = 1 << 20;
constexpr int64_t most_spins = 4096;  // some 50 us

struct Work {
    const QxQuantLinear& a;
    const QuantLinearKernels& k;
    int64_t panels;
    void* made;
    std::atomic<int64_t> there;  // threads whose rows are bytes
    std::atomic<bool> ok;
};

// False when the other threads are not there after a while: on a busy machine they may be off their cores.
bool all_there(const Work& w, int threads) {
    for (int64_t spins = 0; spins < most_spins; ++spins) {
        if (w.there.load(std::memory_order_acquire) >= threads) return true;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    return false;
}

// Rows become bytes once, each thread some of them, before every thread multiplies all of them with its panels. A thread that
// waits too long for the others makes the bytes of all rows itself.
void shared_part(void* context, int thread, int threads) {
    Work& w = *static_cast<Work*>(context);
    const auto at = [](int64_t n, int64_t i, int64_t of) { return n * i / of; };
    w.k.rows(w.a, w.made, at(w.a.rows, thread, threads), at(w.a.rows, thread + 1, threads));
    w.there.fetch_add(1, std::memory_order_release);
    const void* made = all_there(w, threads) ? w.made : nullptr;
    if (!w.k.part(w.a, made, 0, w.a.rows, at(w.panels, thread, threads), at(w.panels, thread + 1, threads))) w.ok.store(false, std::memory_order_relaxed);
}

}  // namespace

int64_t qx_quant_linear_bytes(const QxQuantLinear* a) { return kernels_of(a->isa).quant_linear->bytes(*a); }

int64_t qx_quant_linear_pack(const QxQuantLinear* a, int64_t threads) {
    const QuantLinearKernels& k = *kernels_of(a->isa).quant_linear;
    for_rows(panels_of(k, a->n), a->n * a->k, 1 << 16, int(threads), [&](int64_t first, int64_t last) { k.pack(*a, a->out, first, last); });
    return QX_OK;
}

int64_t qx_quant_linear(const QxQuantLinear* a, int64_t threads) {
    const QuantLinearKernels& k = *kernels_of(a->isa).quant_linear;
    const int64_t panels = panels_of(k, a->n), room = k.rows_bytes(*a);
    const bool large = 2.0 * double(a->rows) * double(a->n) * double(a->k) >= grain_operations;
    if (large && threads > 1 && room <= most_shared && cut_of(a->rows, panels, k.vectors, threads, make_row).columns == threads) {
        void* made = scratch(1, size_t(room));
        if (!made) return QX_NO_MEMORY;
        Work work{*a, k, panels, made, {0}, {true}};
        parallel(int(threads), shared_part, &work);
        return work.ok ? QX_OK : QX_NO_MEMORY;
    }
    const auto part = [&](int64_t begin, int64_t end, int64_t first, int64_t last) { return k.part(*a, nullptr, begin, end, first, last); };
    return run_in_parts(*a, k, threads, grain_operations, make_row, part);
}
