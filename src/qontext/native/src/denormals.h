// Denormal numbers cost x86 processors 100 times a normal operation: attention treats them as zero while it runs.
#pragma once
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace qx {
namespace QX_NS {

struct FlushDenormals {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#endif
};

}  // namespace QX_NS
}  // namespace qx
