#define QX_USE_AVX2
#define QX_NS avx2
#include "activation.h"
#include "kernels.h"
#include "norm.h"

namespace qx {

const Kernels kernels_avx2 = {avx2::norm_rows, avx2::embed_rows, avx2::activate_rows, nullptr};

}  // namespace qx
