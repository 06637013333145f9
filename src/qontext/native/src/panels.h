// Columns of a packed matrix, cut into panels of up to `panel_vectors` vectors of nearly equal width.
//
// A packed matrix of K steps and n columns holds panel after panel; a panel of w columns is [K][w] words of 32 bits (a
// float, or two bfloat16 that follow each other along K). Panel i begins at word K * width * first(i).
#pragma once
#include "vec.h"

namespace qx {
namespace QX_NS {

struct Panels {
    int count, base, extra;

    Panels(int64_t columns, int most_vectors) {
        const int vectors = int((columns + width - 1) / width);
        count = (vectors + most_vectors - 1) / most_vectors;
        base = count ? vectors / count : 0;
        extra = count ? vectors % count : 0;
    }
    int first(int i) const { return i * base + (i < extra ? i : extra); }
    int vectors(int i) const { return base + (i < extra); }
};

static inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace QX_NS
}  // namespace qx
