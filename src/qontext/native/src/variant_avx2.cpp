#define QX_USE_AVX2
#define QX_NS avx2
#include "activation.h"
#include "attention_choice.h"
#include "decode.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"
#include "quant_attention.h"
#include "quant_linear.h"

namespace qx {

const Kernels kernels_avx2 = {avx2::norm_rows, avx2::embed_rows, avx2::activate_rows, avx2::attention<avx2::attend<avx2::BF16, avx2::FloatCore<avx2::BF16>>>, &avx2::linear_kernels, &avx2::quant_linear_kernels, avx2::quant_attention, avx2::decode};

}  // namespace qx
