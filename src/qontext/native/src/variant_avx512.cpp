#define QX_USE_AVX512
#define QX_NS avx512
#include "activation.h"
#include "kernels.h"
#include "norm.h"

namespace qx {

const Kernels kernels_avx512 = {avx512::norm_rows, avx512::embed_rows, avx512::activate_rows, nullptr};

}  // namespace qx
