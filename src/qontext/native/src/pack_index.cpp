// Where the tokens of a padded batch are. One pass without branches over a mask of a few thousand values: too little for
// a second thread.
#include "api.h"

namespace {

template <class T>
int64_t index_of(const QxPackIndex& a) {
    const T* mask = static_cast<const T*>(a.mask);
    int64_t found = 0, longest = 0;
    a.boundaries[0] = 0;
    for (int64_t row = 0, at = 0; row < a.rows; ++row) {
        const int64_t before = found;
        for (const int64_t end = at + a.length; at < end; ++at) {
            a.index[found] = at;  // kept only if the next line moves on
            found += mask[at] != T(0);
        }
        a.boundaries[row + 1] = int32_t(found);
        longest = found - before > longest ? found - before : longest;
    }
    return longest;
}

}  // namespace

int64_t qx_pack_index(const QxPackIndex* args) {
    switch (args->kind) {
        case QX_MASK_BOOL: return index_of<uint8_t>(*args);
        case QX_MASK_I32: return index_of<int32_t>(*args);
        case QX_MASK_I64: return index_of<int64_t>(*args);
        default: return index_of<float>(*args);
    }
}
