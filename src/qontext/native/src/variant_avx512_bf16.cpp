#define QX_USE_AVX512
#define QX_NS avx512_bf16
#include "activation.h"
#include "kernels.h"
#include "norm.h"

namespace qx {

const Kernels kernels_avx512_bf16 = {avx512_bf16::norm_rows, avx512_bf16::embed_rows, avx512_bf16::activate_rows, nullptr};

}  // namespace qx
