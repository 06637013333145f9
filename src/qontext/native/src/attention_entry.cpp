// The C entry point of attention: plan, then hand the tasks out.
#include "attention_plan.h"
#include "dispatch.h"
#include "parallel.h"

using namespace qx;

namespace {

// Below this many operations a second thread costs more than it brings (its wake-up takes some microseconds).
constexpr double grain_flops = 1e6;

}  // namespace

int64_t qx_attention(const QxAttention* args, int64_t threads) {
    const double most = 4.0 * double(args->cu_q ? 1 : args->batch) * double(args->q_len) * double(args->kv_len) * double(args->heads) * double(args->head_size);
    if (most < grain_flops) threads = 1;
    AttentionPlan plan;
    if (const QxStatus status = make_plan(*args, threads, &plan)) return status;
    const Kernels& k = kernels();
    std::atomic<bool> ok{true};
    for_tasks(plan.count, int(threads), [&](int64_t i) {
        if (!k.attention(plan, plan.tasks[i])) ok.store(false, std::memory_order_relaxed);
    });
    return ok ? QX_OK : QX_NO_MEMORY;
}
