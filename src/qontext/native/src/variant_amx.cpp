#define QX_USE_AVX512
#define QX_NS amx
#include "activation.h"
#include "attention_amx.h"
#include "attention_float.h"
#include "attention_task.h"
#include "kernels.h"
#include "norm.h"

namespace qx {
namespace amx {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    if (plan.args->dtype == QX_BF16) {
        const Tiles tiles;
        return run_attention<TileCore>(plan, task, ahead);
    }
    if (plan.args->dtype == QX_F16) return run_attention<FloatCore<F16>>(plan, task, ahead);
    return run_attention<FloatCore<F32>>(plan, task, ahead);
}

}  // namespace amx

const Kernels kernels_amx = {amx::norm_rows, amx::embed_rows, amx::activate_rows, amx::attention};

}  // namespace qx
