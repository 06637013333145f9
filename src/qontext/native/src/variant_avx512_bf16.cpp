#define QX_USE_AVX512
#define QX_NS avx512_bf16
#include "activation.h"
#include "attention_bf16.h"
#include "attention_float.h"
#include "attention_task.h"
#include "kernels.h"
#include "norm.h"

namespace qx {
namespace avx512_bf16 {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    if (plan.args->dtype == QX_BF16) return run_attention<PairCore>(plan, task, ahead);
    if (plan.args->dtype == QX_F16) return run_attention<FloatCore<F16>>(plan, task, ahead);
    return run_attention<FloatCore<F32>>(plan, task, ahead);
}

}  // namespace avx512_bf16

const Kernels kernels_avx512_bf16 = {avx512_bf16::norm_rows, avx512_bf16::embed_rows, avx512_bf16::activate_rows, avx512_bf16::attention};

}  // namespace qx
