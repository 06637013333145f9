// One task of attention over a cache: the queries that share a key head, against a run of keys that are read where they
// lie. The sums run beside the largest score so far, and are scaled when it rises. Where queries are bfloat16 and the
// processor multiplies pairs of them, caches of bfloat16 and of eight bits are read by blocks; all others as floats.
#pragma once
#include "decode_blocks.h"
#include "decode_floats.h"
#include "denormals.h"

namespace qx {
namespace QX_NS {

// Runs a task, or joins the parts that begin with it. False when there is no memory for the scratch.
static bool decode(const QxDecode& a, const DecodeTask& task, bool join) {
    const FlushDenormals flush;
    bool ok = true;
    with_type(a.dtype, [&](auto type) {
        using D = decltype(type);
        with_cached(a.cache_type, [&](auto cached) {
            using C = decltype(cached);
#if defined(__AVX512BF16__)
            if constexpr (multiplies_pairs<D, C>) {
                if (a.head_size % pair_step == 0) {
                    DecodeBlocks<C> blocks(a, task);
                    ok = join ? blocks.join() : blocks.run();
                    return;
                }
            }
#endif
            DecodeFloats<D, C> floats(a, task);
            ok = join ? floats.join() : floats.run();
        });
    });
    return ok;
}

}  // namespace QX_NS
}  // namespace qx
