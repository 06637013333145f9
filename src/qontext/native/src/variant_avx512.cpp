#define QX_USE_AVX512
#define QX_NS avx512
#include "activation.h"
#include "attention_choice.h"
#include "decode.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"
#include "quant_attention.h"
#include "quant_linear.h"

namespace qx {

const Kernels kernels_avx512 = {avx512::norm_rows, avx512::embed_rows, avx512::activate_rows, avx512::attention<avx512::attend<avx512::BF16, avx512::FloatCore<avx512::BF16>>>, &avx512::linear_kernels, &avx512::quant_linear_kernels, avx512::quant_attention, avx512::decode};

}  // namespace qx
