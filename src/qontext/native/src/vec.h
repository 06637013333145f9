// The vector type of the instruction set that this file is compiled for.
#pragma once

#if defined(QX_USE_AVX512)
#include "vec_avx512.h"
#elif defined(QX_USE_AVX2)
#include "vec_avx2.h"
#else
#include "vec_generic.h"
#endif
