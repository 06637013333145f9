// Attention of few queries a sequence over a cache, as when text is generated: cut into tasks, the same for every
// instruction set.
#pragma once
#include "api.h"

namespace qx {

// Parts of a sequence are whole numbers of so many keys.
constexpr int64_t decode_keys = 128;
// A task takes so many key heads and rows of queries at most, or one head.
constexpr int64_t most_decode_heads = 16, most_decode_rows = 64;

// Keys [begin, end) of one sequence, counted among those that its first query can see, for `heads` key heads.
struct DecodeTask {
    int32_t row, kv_head, heads, part, parts;
    int64_t begin, end;
    float* partial;  // where several parts meet: for each head and row the largest score, the total and the sums
};

// Key heads that a task takes: in pages those of one page lie one after the other, and a run of memory is read faster.
inline int64_t heads_together(const QxDecode& a, int64_t row) {
    if (!a.table) return 1;
    int64_t most = most_decode_rows / (a.heads / a.kv_heads * a.queries[row]);
    if (most > most_decode_heads) most = most_decode_heads;
    if (most > a.kv_heads) most = a.kv_heads;
    while (most > 1 && a.kv_heads % most) --most;
    return most > 1 ? most : 1;
}

// The positions that a sequence looks at: [0, kept), then [low, total).
struct SeenKeys {
    int64_t kept, low, total;
    int64_t count() const { return kept + total - low; }
    int64_t position(int64_t n) const { return n < kept ? n : low + n - kept; }
};

inline SeenKeys seen_keys(const QxDecode& a, int64_t row) {
    const int64_t total = int64_t(a.past[row]) + a.queries[row];
    int64_t low = a.window > 0 ? int64_t(a.past[row]) + 1 - a.window : 0;
    if (low <= a.sinks) low = 0;  // no gap between the first keys and the window
    return {low > 0 ? a.sinks : 0, low, total};
}

// Where the token at a position of a slot lies, in elements from the start of the cache, for key head 0.
inline int64_t place_of(const QxDecode& a, int64_t slot, int64_t position) {
    int64_t place = position;
    if (place >= a.capacity) place = a.sinks + (position - a.sinks) % (a.capacity - a.sinks);
    if (!a.table) return slot * a.block + place * a.token;
    return int64_t(a.table[slot * a.table_row + place / a.page]) * a.block + place % a.page * a.token;
}

// Asks memory for numbers that will be read soon. Into the second level of cache: the first has few requests open at a
// time, which would all wait for memory.
template <class T>
inline void bring_near(const T* p, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(p + i, 0, 2);
}

// How many tokens from a position on lie one after the other, whatever slot they are of.
inline int64_t straight(const QxDecode& a, int64_t position) {
    int64_t place = position, end = a.capacity;
    if (place >= a.capacity) place = a.sinks + (position - a.sinks) % (a.capacity - a.sinks);
    if (a.table) end = (place / a.page + 1) * a.page;
    return (end < a.capacity ? end : a.capacity) - place;
}

// The slot that a sequence reads a position from: another beam's, where the tokens before this step came from it.
inline int64_t slot_of(const QxDecode& a, int64_t row, int64_t position) {
    const int64_t slot = a.slots[row];
    if (!a.indirection || position >= a.past[row] || position >= a.width) return slot;
    const int64_t beam = a.indirection[slot * a.width + position];
    return slot - slot % a.beams + beam;
}

}  // namespace qx
