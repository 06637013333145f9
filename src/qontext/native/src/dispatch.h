// The kernels of the instruction set in force.
#pragma once
#include "kernels.h"

namespace qx {

const Kernels& kernels();

}  // namespace qx
