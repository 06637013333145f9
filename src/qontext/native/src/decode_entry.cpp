// The C entry point of attention over a cache: cut into tasks, hand them out, join what was cut.
#include <cstring>

#include "decode_plan.h"
#include "dispatch.h"
#include "parallel.h"
#include "scratch.h"

using namespace qx;

namespace {

constexpr int64_t tasks_per_thread = 4, fewest_keys = 512;

// Parts that the keys of a sequence and key head are cut into: where sequences and heads do not keep all threads busy.
int64_t parts_of(int64_t keys, int64_t share) {
    const int64_t parts = (keys + share - 1) / share, most = keys / fewest_keys;
    return parts < most ? parts : most > 1 ? most : 1;
}

}  // namespace

int64_t qx_decode(const QxDecode* args, int64_t threads) {
    const QxDecode& a = *args;
    const int64_t group = a.heads / a.kv_heads, wide = (a.head_size + 15) / 16 * 16;
    int64_t keys = 0;
    for (int64_t r = 0; r < a.rows; ++r) keys += seen_keys(a, r).count();
    const int64_t wanted = threads > 1 ? threads * tasks_per_thread : 1;
    // Keys of a task that takes one head.
    const int64_t share = keys * a.kv_heads / wanted + 1;
    const auto parts = [&](int64_t r) { return parts_of(seen_keys(a, r).count(), share / heads_together(a, r) + 1); };
    int64_t count = 0, floats = 0;
    for (int64_t r = 0; r < a.rows; ++r) {
        count += parts(r) * (a.kv_heads / heads_together(a, r));
        if (parts(r) > 1) floats += parts(r) * a.kv_heads * group * a.queries[r] * (wide + 2);
    }
    Carver size(nullptr);
    size.take<DecodeTask>(size_t(count));
    size.take<float>(size_t(floats));
    void* base = scratch(1, size.used() + 64);
    if (!base) return QX_NO_MEMORY;
    Carver carve(base);
    DecodeTask* tasks = carve.take<DecodeTask>(size_t(count));
    float* partial = carve.take<float>(size_t(floats));
    int64_t n = 0;
    for (int64_t r = 0; r < a.rows; ++r) {
        const int64_t seen = seen_keys(a, r).count(), cut = parts(r), heads = heads_together(a, r);
        const int64_t each = ((seen + cut - 1) / cut + decode_keys - 1) / decode_keys * decode_keys;
        for (int64_t h = 0; h < a.kv_heads; h += heads)
            for (int64_t p = 0; p < cut; ++p) {
                const int64_t begin = p * each < seen ? p * each : seen, end = begin + each < seen ? begin + each : seen;
                tasks[n++] = {int32_t(r), int32_t(h), int32_t(heads), int32_t(p), int32_t(cut), begin, end, partial};
                if (cut > 1) partial += heads * group * a.queries[r] * (wide + 2);
            }
    }
    const Kernels& k = kernels();
    std::atomic<bool> ok{true};
    if (double(keys) * double(a.heads) * double(a.head_size) * 4.0 < 1e6) threads = 1;
    for_runs(n, 1, int(threads), [&](int64_t begin, int64_t end, int64_t, int64_t) {
        for (int64_t i = begin; i < end; ++i)
            if (!k.decode(a, tasks[i], false)) ok.store(false, std::memory_order_relaxed);
    });
    for (int64_t i = 0; i < n; ++i)
        if (tasks[i].parts > 1 && tasks[i].part == 0 && !k.decode(a, tasks[i], true)) ok.store(false, std::memory_order_relaxed);
    return ok.load() ? QX_OK : QX_NO_MEMORY;
}
