#define QX_NS generic
#include "activation.h"
#include "kernels.h"
#include "norm.h"

namespace qx {

const Kernels kernels_generic = {generic::norm_rows, generic::embed_rows, generic::activate_rows, nullptr};

}  // namespace qx
