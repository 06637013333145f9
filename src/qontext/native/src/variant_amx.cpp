#define QX_USE_AVX512
#define QX_NS amx
#include "activation.h"
#include "kernels.h"
#include "norm.h"

namespace qx {

const Kernels kernels_amx = {amx::norm_rows, amx::embed_rows, amx::activate_rows, nullptr};

}  // namespace qx
