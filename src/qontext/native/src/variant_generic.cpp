#define QX_NS generic
#include "activation.h"
#include "attention_choice.h"
#include "decode.h"
#include "kernels.h"
#include "linear.h"
#include "norm.h"
#include "quant_attention.h"
#include "quant_linear.h"

namespace qx {

const Kernels kernels_generic = {generic::norm_rows, generic::embed_rows, generic::activate_rows, generic::attention<generic::attend<generic::BF16, generic::FloatCore<generic::BF16>>>, &generic::linear_kernels, &generic::quant_linear_kernels, generic::quant_attention, generic::decode};

}  // namespace qx
