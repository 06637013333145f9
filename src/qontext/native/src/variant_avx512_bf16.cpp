#define QX_USE_AVX512
#define QX_NS avx512_bf16
#include "activation.h"
#include "attention_bf16.h"
#include "attention_choice.h"
#include "decode.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"
#include "quant_attention.h"
#include "quant_linear.h"

namespace qx {

const Kernels kernels_avx512_bf16 = {avx512_bf16::norm_rows, avx512_bf16::embed_rows, avx512_bf16::activate_rows, avx512_bf16::attention<avx512_bf16::attend<avx512_bf16::BF16, avx512_bf16::PairCore, 4>>, &avx512_bf16::linear_kernels, &avx512_bf16::quant_linear_kernels, avx512_bf16::quant_attention, avx512_bf16::decode};

}  // namespace qx
