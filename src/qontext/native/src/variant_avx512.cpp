#define QX_USE_AVX512
#define QX_NS avx512
#include "activation.h"
#include "attention_float.h"
#include "attention_task.h"
#include "kernels.h"
#include "norm.h"

namespace qx {
namespace avx512 {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    if (plan.args->dtype == QX_BF16) return run_attention<FloatCore<BF16>>(plan, task, ahead);
    if (plan.args->dtype == QX_F16) return run_attention<FloatCore<F16>>(plan, task, ahead);
    return run_attention<FloatCore<F32>>(plan, task, ahead);
}

}  // namespace avx512

const Kernels kernels_avx512 = {avx512::norm_rows, avx512::embed_rows, avx512::activate_rows, avx512::attention};

}  // namespace qx
