// One table of kernels for each instruction set. Each entry works on a part of a call; entry.cpp deals the parts out.
#pragma once
#include "api.h"

namespace qx {

struct AttentionPlan;
struct AttentionTask;
struct DecodeTask;
class Prefetch;

// A linear layer: columns come in panels of up to `vectors` vectors of `width`.
struct LinearKernels {
    int64_t width, vectors;
    int64_t (*words)(int64_t dtype, int64_t k);  // 32-bit words along K, 0 for a dtype it does not multiply
    void (*pack)(const QxLinear&, void* packed, int64_t first_panel, int64_t last_panel);
    bool (*part)(const QxLinear&, int64_t begin, int64_t end, int64_t first_panel, int64_t last_panel);
};

// The same for eight-bit weights, which every instruction set multiplies.
struct QuantLinearKernels {
    int64_t width, vectors;
    int64_t (*bytes)(const QxQuantLinear&);  // of packed weights
    void (*pack)(const QxQuantLinear&, void* packed, int64_t first_panel, int64_t last_panel);
    bool (*part)(const QxQuantLinear&, int64_t begin, int64_t end, int64_t first_panel, int64_t last_panel);
};

struct Kernels {
    void (*norm_rows)(const QxNorm&, int64_t begin, int64_t end, float* row);
    void (*embed_rows)(const QxEmbed&, int64_t begin, int64_t end, float* row);
    void (*activate_rows)(const QxActivationArgs&, int64_t begin, int64_t end);
    // Calls ahead.some() once for every block of rows. False when there is no memory for the scratch.
    bool (*attention)(const AttentionPlan&, const AttentionTask&, Prefetch& ahead);
    const LinearKernels* linear;
    const QuantLinearKernels* quant_linear;
    // False when there is no memory for the scratch.
    bool (*quant_attention)(const QxQuantAttention&, const AttentionPlan&, const AttentionTask&);
    // Attends, or (join) puts the parts of a cut sequence together. False when there is no memory for the scratch.
    bool (*decode)(const QxDecode&, const DecodeTask&, bool join);
};

extern const Kernels kernels_generic, kernels_avx2, kernels_avx512, kernels_avx512_bf16, kernels_amx;

}  // namespace qx
