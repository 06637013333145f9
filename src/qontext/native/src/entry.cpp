// The C entry points for row-wise kernels: pick the instruction set, check indices, deal rows out to threads.
#include "api.h"
#include "dispatch.h"
#include "isa.h"
#include "parallel.h"
#include "rows.h"
#include "scratch.h"

namespace qx {

namespace {

// Below two grains of work a second thread costs more than it brings: by bench/threads.py 65536 elements take 11 to 17 us
// alone, and a thread that sleeps is woken in some 15 us. A byte moved is a quarter of an element.
constexpr int64_t grain = 32768;

std::atomic<int64_t> current{-1};

const Kernels* built(int64_t isa) {
    switch (isa) {
        case QX_GENERIC: return &kernels_generic;
#if defined(QX_HAVE_AVX2)
        case QX_AVX2: return &kernels_avx2;
#endif
#if defined(QX_HAVE_AVX512)
        case QX_AVX512: return &kernels_avx512;
#endif
#if defined(QX_HAVE_AVX512_BF16)
        case QX_AVX512_BF16: return &kernels_avx512_bf16;
#endif
#if defined(QX_HAVE_AMX)
        case QX_AMX: return &kernels_amx;
#endif
        default: return nullptr;
    }
}

bool usable(int64_t isa) { return built(isa) && isa_supported(isa); }

int64_t best() {
    int64_t isa = QX_ISA_COUNT - 1;
    while (!usable(isa)) --isa;
    return isa;
}

// Deals `rows` rows of `size` values out; each thread gets one scratch row. Returns false when there is no memory.
template <class F>
bool with_row(int64_t rows, int64_t size, int64_t threads, F&& f) {
    std::atomic<bool> ok{true};
    for_rows(rows, rows * size, grain, int(threads), [&](int64_t begin, int64_t end) {
        float* row = static_cast<float*>(scratch(0, size_t(size) * sizeof(float) + 64));
        if (row) f(begin, end, row);
        else ok = false;
    });
    return ok;
}

int64_t first_bad_id(const void* ids, int64_t bytes, int64_t count, int64_t bound) {
    QxRows rows{};
    rows.index = ids;
    rows.index_bytes = bytes;
    rows.count = count;
    rows.bound = bound;
    return check_index(rows, nullptr);
}

}  // namespace

const Kernels& kernels() {
    int64_t isa = current.load(std::memory_order_relaxed);
    if (isa < 0) current.store(isa = best(), std::memory_order_relaxed);
    return *built(isa);
}

const Kernels& kernels_of(int64_t isa) { return *built(isa); }

}  // namespace qx

using namespace qx;

int64_t qx_abi() { return 1; }
int64_t qx_isa_built(int64_t isa) { return built(isa) != nullptr; }
int64_t qx_isa_supported(int64_t isa) { return isa_supported(isa); }

int64_t qx_set_isa(int64_t isa) {
    if (!usable(isa)) return 0;
    current.store(isa, std::memory_order_relaxed);
    return 1;
}

int64_t qx_get_isa() {
    kernels();
    return current.load(std::memory_order_relaxed);
}

void qx_set_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel) {
    set_openmp(parallel, thread_num, num_threads, in_parallel);
}

int64_t qx_layer_norm(const QxNorm* a, int64_t threads) {
    const Kernels& k = kernels();
    const auto part = [&](int64_t begin, int64_t end, float* row) { k.norm_rows(*a, begin, end, row); };
    return with_row(a->rows, a->size, threads, part) ? QX_OK : QX_NO_MEMORY;
}

int64_t qx_embed_layer_norm(const QxEmbed* a, int64_t threads) {
    int64_t bad = first_bad_id(a->ids, a->ids_bytes, a->tokens, a->word_rows);
    if (bad >= 0) return 4 * bad;
    if (a->positions) {
        bad = first_bad_id(a->positions, a->positions_bytes, a->tokens, a->position_rows);
        if (bad >= 0) return 4 * bad + 1;
    }
    if (a->types) {
        bad = first_bad_id(a->types, a->types_bytes, a->tokens, a->type_rows);
        if (bad >= 0) return 4 * bad + 2;
    }
    const Kernels& k = kernels();
    const auto part = [&](int64_t begin, int64_t end, float* row) { k.embed_rows(*a, begin, end, row); };
    return with_row(a->tokens, a->size, threads, part) ? -1 : -2;
}

int64_t qx_bias_act(const QxActivationArgs* a, int64_t threads) {
    const Kernels& k = kernels();
    for_rows(a->rows, a->rows * a->size, grain, int(threads), [&](int64_t begin, int64_t end) { k.activate_rows(*a, begin, end); });
    return QX_OK;
}

int64_t qx_gather_rows(const QxRows* a, int64_t threads) {
    const int64_t bad = check_index(*a, nullptr);
    if (bad >= 0) return bad;
    for_rows(a->count, a->count * a->row_bytes, 4 * grain, int(threads), [&](int64_t begin, int64_t end) { gather_rows(*a, begin, end); });
    return -1;
}

int64_t qx_scatter_rows(const QxRows* a, int64_t threads) {
    bool rising = false;
    const int64_t bad = check_index(*a, &rising);
    if (bad >= 0) return bad;
    const int64_t work = a->bound * a->row_bytes;
    if (rising) {
        for_rows(a->bound, work, 4 * grain, int(threads), [&](int64_t begin, int64_t end) { scatter_rising(*a, begin, end); });
        return -1;
    }
    for_rows(a->bound, work, 4 * grain, int(threads), [&](int64_t begin, int64_t end) { zero_rows(*a, begin, end); });
    for_rows(a->count, a->count * a->row_bytes, 4 * grain, int(threads), [&](int64_t begin, int64_t end) { scatter_rows(*a, begin, end); });
    return -1;
}
