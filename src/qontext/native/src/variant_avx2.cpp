#define QX_USE_AVX2
#define QX_NS avx2
#include "activation.h"
#include "attention_float.h"
#include "attention_task.h"
#include "kernels.h"
#include "norm.h"

namespace qx {
namespace avx2 {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    if (plan.args->dtype == QX_BF16) return run_attention<FloatCore<BF16>>(plan, task, ahead);
    if (plan.args->dtype == QX_F16) return run_attention<FloatCore<F16>>(plan, task, ahead);
    return run_attention<FloatCore<F32>>(plan, task, ahead);
}

}  // namespace avx2

const Kernels kernels_avx2 = {avx2::norm_rows, avx2::embed_rows, avx2::activate_rows, avx2::attention};

}  // namespace qx
