// The C entry point of attention: plan, then hand the tasks out.
#include "attention_plan.h"
#include "dispatch.h"
#include "parallel.h"
#include "prefetch.h"

using namespace qx;

namespace {

// Below this many operations a second thread costs more than it brings (its wake-up takes some microseconds).
constexpr double grain_flops = 1e6;
constexpr int64_t runs_per_thread = 8, blocks_per_task = 3, near_bytes = 1 << 20;

}  // namespace

int64_t qx_attention(const QxAttention* args, int64_t threads) {
    const double most = 4.0 * double(args->cu_q ? 1 : args->batch) * double(args->q_len) * double(args->kv_len) * double(args->heads) * double(args->head_size);
    if (most < grain_flops) threads = 1;
    AttentionPlan plan;
    if (const QxStatus status = make_plan(*args, threads, &plan)) return status;
    if (plan.count == 0) return QX_OK;
    const Kernels& k = kernels();
    std::atomic<bool> ok{true};
    // A thread takes neighbouring heads, some at a time, and takes its next ones before it works on these: their rows are
    // brought near meanwhile, unless the call is so small that they are near anyway.
    int64_t run = (plan.count + threads * runs_per_thread - 1) / (threads * runs_per_thread);
    if (run > args->kv_heads) run = args->kv_heads;
    while (args->kv_heads % run) --run;  // no run straddles two sequences
    const bool far = plan.bytes > near_bytes * threads;
    for_runs(plan.count, run, int(threads), [&](int64_t begin, int64_t end, int64_t next, int64_t next_end) {
        Prefetch ahead;
        if (far && next < next_end) ahead = Prefetch(plan, plan.tasks[next], plan.tasks[next_end - 1], (end - begin) * blocks_per_task);
        for (int64_t i = begin; i < end; ++i)
            if (!k.attention(plan, plan.tasks[i], ahead)) ok.store(false, std::memory_order_relaxed);
    });
    return ok ? QX_OK : QX_NO_MEMORY;
}
