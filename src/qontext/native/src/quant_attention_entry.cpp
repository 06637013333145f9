// The C entry point of attention in eight bits: plan, then hand the tasks out.
#include "attention_plan.h"
#include "dispatch.h"
#include "parallel.h"

using namespace qx;

namespace {

constexpr double grain_operations = 1e6;

}  // namespace

int64_t qx_quant_attention(const QxQuantAttention* args, int64_t threads) {
    const QxAttention& a = args->attention;
    const double most = 4.0 * double(a.cu_q ? 1 : a.batch) * double(a.q_len) * double(a.kv_len) * double(a.heads) * double(a.head_size);
    if (most < grain_operations) threads = 1;
    AttentionPlan plan;
    if (const QxStatus status = make_plan(a, threads, &plan)) return status;
    if (plan.count == 0) return QX_OK;
    const Kernels& k = kernels();
    std::atomic<bool> ok{true};
    for_runs(plan.count, 1, int(threads), [&](int64_t begin, int64_t end, int64_t, int64_t) {
        for (int64_t i = begin; i < end; ++i)
            if (!k.quant_attention(*args, plan, plan.tasks[i])) ok.store(false, std::memory_order_relaxed);
    });
    return ok ? QX_OK : QX_NO_MEMORY;
}
