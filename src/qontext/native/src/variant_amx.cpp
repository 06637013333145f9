#define QX_USE_AVX512
#define QX_NS amx
#include "activation.h"
#include "attention_amx.h"
#include "attention_direct.h"
#include "attention_task.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"

namespace qx {
namespace amx {

static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    const int64_t rows = task.end - task.begin;
    switch (plan.args->dtype) {
        case QX_BF16: {
            if (rows <= 2) return run_attention<DirectCore<BF16>>(plan, task, ahead);
            const Tiles tiles;
            return run_attention<TileCore>(plan, task, ahead);
        }
        case QX_F16: return rows <= 6 ? run_attention<DirectCore<F16>>(plan, task, ahead) : run_attention<FloatCore<F16>>(plan, task, ahead);
        default: return rows <= 6 ? run_attention<DirectCore<F32>>(plan, task, ahead) : run_attention<FloatCore<F32>>(plan, task, ahead);
    }
}

}  // namespace amx

const Kernels kernels_amx = {amx::norm_rows, amx::embed_rows, amx::activate_rows, amx::attention, &amx::linear_kernels};

}  // namespace qx
