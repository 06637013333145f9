// The kernels of the instruction set in force.
#pragma once
#include "kernels.h"

namespace qx {

const Kernels& kernels();

// Those of one instruction set, which must be built and supported.
const Kernels& kernels_of(int64_t isa);

}  // namespace qx
