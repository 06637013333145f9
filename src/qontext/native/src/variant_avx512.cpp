#define QX_USE_AVX512
#define QX_NS avx512
#include "activation.h"
#include "attention_direct.h"
#include "attention_task.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"

namespace qx {
namespace avx512 {

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

}  // namespace avx512

const Kernels kernels_avx512 = {avx512::norm_rows, avx512::embed_rows, avx512::activate_rows, avx512::attention, &avx512::linear_kernels};

}  // namespace qx
