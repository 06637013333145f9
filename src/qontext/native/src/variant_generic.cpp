#define QX_NS generic
#include "activation.h"
#include "attention_float.h"
#include "attention_task.h"
#include "kernels.h"
#include "norm.h"

namespace qx {
namespace generic {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    if (plan.args->dtype == QX_BF16) return run_attention<FloatCore<BF16>>(plan, task, ahead);
    if (plan.args->dtype == QX_F16) return run_attention<FloatCore<F16>>(plan, task, ahead);
    return run_attention<FloatCore<F32>>(plan, task, ahead);
}

}  // namespace generic

const Kernels kernels_generic = {generic::norm_rows, generic::embed_rows, generic::activate_rows, generic::attention};

}  // namespace qx
