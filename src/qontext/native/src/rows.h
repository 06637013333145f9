// Rows by index: pack and unpack tokens. No arithmetic, so one version serves every processor.
#pragma once
#include "api.h"

namespace qx {

// The place of the first index outside [0, bound), or -1. `rising` is set when each index is above the one before.
int64_t check_index(const QxRows& args, bool* rising);

void gather_rows(const QxRows& args, int64_t begin, int64_t end);

// Writes output rows [begin, end): those named by a rising index from x, the others zero.
void scatter_rising(const QxRows& args, int64_t begin, int64_t end);

void zero_rows(const QxRows& args, int64_t begin, int64_t end);
void scatter_rows(const QxRows& args, int64_t begin, int64_t end);

}  // namespace qx
