// Calls of the kernels, one after the other, without a word of the interpreter between them.
#include "api.h"

int64_t qx_replay(const QxCall* calls, int64_t count) {
    // Every kernel takes the address of its arguments and a number of threads.
    using Kernel = int64_t (*)(const void*, int64_t);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t status = reinterpret_cast<Kernel>(calls[i].kernel)(reinterpret_cast<const void*>(calls[i].arguments), calls[i].threads);
        if (status != QX_OK) return i << 8 | status;
    }
    return QX_OK;
}
