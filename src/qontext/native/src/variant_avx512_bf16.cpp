#define QX_USE_AVX512
#define QX_NS avx512_bf16
#include "activation.h"
#include "attention_bf16.h"
#include "attention_direct.h"
#include "attention_task.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"

namespace qx {
namespace avx512_bf16 {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    const int64_t rows = task.end - task.begin;
    switch (plan.args->dtype) {
        case QX_BF16: {
            if (rows <= 4) return run_attention<DirectCore<BF16>>(plan, task, ahead);
            return run_attention<PairCore>(plan, task, ahead);
        }
        case QX_F16: return rows <= 6 ? run_attention<DirectCore<F16>>(plan, task, ahead) : run_attention<FloatCore<F16>>(plan, task, ahead);
        default: return rows <= 6 ? run_attention<DirectCore<F32>>(plan, task, ahead) : run_attention<FloatCore<F32>>(plan, task, ahead);
    }
}

}  // namespace avx512_bf16

const Kernels kernels_avx512_bf16 = {avx512_bf16::norm_rows, avx512_bf16::embed_rows, avx512_bf16::activate_rows, avx512_bf16::attention, &avx512_bf16::linear_kernels};

}  // namespace qx
