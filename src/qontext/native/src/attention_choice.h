// Which arithmetic an attention task takes, by data type and number of rows.
#pragma once
#include "attention_direct.h"
#include "attention_task.h"

namespace qx {
namespace QX_NS {

using Attend = bool (*)(const AttentionPlan&, const AttentionTask&, Prefetch&);

// Up to `few` rows read keys and values where they lie; for more it pays to pack them.
template <class D, class Packed, int few = 6>
static bool attend(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    return task.end - task.begin <= few ? run_attention<DirectCore<D>>(plan, task, ahead) : run_attention<Packed>(plan, task, ahead);
}

template <Attend attend_bf16>
static bool attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    switch (plan.args->dtype) {
        case QX_BF16: return attend_bf16(plan, task, ahead);
        case QX_F16: return attend<F16, FloatCore<F16>>(plan, task, ahead);
        default: return attend<F32, FloatCore<F32>>(plan, task, ahead);
    }
}

}  // namespace QX_NS
}  // namespace qx
