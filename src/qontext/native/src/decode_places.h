// Where a run of keys lies in the cache: an address each, found run by run of tokens that lie one after the other.
#pragma once
#include "cached.h"
#include "decode_plan.h"

namespace qx {
namespace QX_NS {

// Up to N keys of one key head; their values, and other heads' keys, lie at the same distance from each.
template <class Cached, int64_t N>
struct KeyPlaces {
    static constexpr int64_t spare = 16;  // keys are worked on in tiles, which are read whole

    int64_t count = 0;
    const Cached* keys[N + spare];
    int64_t positions[N];

    // Up to `most` of them, from the n-th that the sequence sees on.
    void find(const QxDecode& a, const DecodeTask& task, const SeenKeys& seen, int64_t n, int64_t most = N) {
        count = task.end - n < most ? task.end - n : most;
        const Cached* base = static_cast<const Cached*>(a.cache) + task.kv_head * a.head;
        for (int64_t i = 0; i < count;) {
            const int64_t position = seen.position(n + i), gap = n + i < seen.kept ? seen.kept - n - i : count;
            int64_t run = a.indirection ? 1 : straight(a, position);
            if (run > count - i) run = count - i;
            if (run > gap) run = gap;
            const Cached* at = base + place_of(a, slot_of(a, task.row, position), position);
            for (int64_t k = 0; k < run; ++k, ++i, at += a.token) {
                positions[i] = position + k;
                keys[i] = at;
            }
        }
        for (int64_t i = count; i < count + spare; ++i) keys[i] = keys[count - 1];
    }
};

}  // namespace QX_NS
}  // namespace qx
