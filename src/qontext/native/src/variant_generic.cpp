#define QX_NS generic
#include "activation.h"
#include "attention_direct.h"
#include "attention_task.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"

namespace qx {
namespace generic {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    const int64_t rows = task.end - task.begin;
    switch (plan.args->dtype) {
        case QX_BF16: {
            if (rows <= 6) return run_attention<DirectCore<BF16>>(plan, task, ahead);
            return run_attention<FloatCore<BF16>>(plan, task, ahead);
        }
        case QX_F16: return rows <= 6 ? run_attention<DirectCore<F16>>(plan, task, ahead) : run_attention<FloatCore<F16>>(plan, task, ahead);
        default: return rows <= 6 ? run_attention<DirectCore<F32>>(plan, task, ahead) : run_attention<FloatCore<F32>>(plan, task, ahead);
    }
}

}  // namespace generic

const Kernels kernels_generic = {generic::norm_rows, generic::embed_rows, generic::activate_rows, generic::attention, &generic::linear_kernels};

}  // namespace qx
