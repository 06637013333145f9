#define QX_USE_AVX512
#define QX_NS amx
#include "activation.h"
#include "attention_amx.h"
#include "attention_choice.h"
#include "decode.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"
#include "quant_attention.h"
#include "quant_linear.h"

namespace qx {
namespace amx {

// The tile registers are set up for the task that uses them.
static bool attend_with_tiles(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    if (task.end - task.begin <= 2) return run_attention<DirectCore<BF16>>(plan, task, ahead);
    const Tiles tiles;
    return run_attention<TileCore>(plan, task, ahead);
}

}  // namespace amx

const Kernels kernels_amx = {amx::norm_rows, amx::embed_rows, amx::activate_rows, amx::attention<amx::attend_with_tiles>, &amx::linear_kernels, &amx::quant_linear_kernels, amx::quant_attention, amx::decode};

}  // namespace qx
