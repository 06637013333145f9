// What this processor and its operating system can run.
#pragma once
#include "api.h"

namespace qx {

bool isa_supported(int64_t isa);

}  // namespace qx
