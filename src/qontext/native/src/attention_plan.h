// What an attention call asks for, cut into tasks; the same for every instruction set.
#pragma once
#include <atomic>

#include "api.h"

namespace qx {

// Keys that a task packs and scores at once: their fp32 scores, keys and values fit a level-2 cache.
constexpr int64_t keys_at_once = 512;

// One sequence of a call. Query i stands at position i + offset of the keys.
struct Sequence {
    int64_t batch;             // its place in the batch
    int64_t q_first, q_len;    // rows of q: the first one (0 unless packed), how many
    int64_t k_first, kv_len;   // rows of k and v
    int64_t valid;             // keys [0, valid) exist
    int64_t offset, prefix;
};

// Rows [begin, end) of one sequence and one key head. Row r is query r / group of head kv_head * group + r % group:
// the heads that share keys lie side by side.
struct AttentionTask {
    int32_t batch, kv_head;
    int64_t begin, end;
};

struct AttentionPlan {
    const QxAttention* args;
    const AttentionTask* tasks;
    int64_t count;
    int64_t group;  // query heads to a key head
    int64_t bytes;  // of q, k and v together, roughly
    mutable std::atomic<bool> careful{false};  // the quick way of the exponentials has failed once
};

struct KeyRange {
    int64_t begin, end;
};

inline Sequence sequence_at(const QxAttention& a, int64_t b) {
    Sequence s;
    s.batch = b;
    s.q_first = a.cu_q ? a.cu_q[b] : 0;
    s.q_len = a.cu_q ? a.cu_q[b + 1] - s.q_first : a.q_len;
    s.k_first = a.cu_k ? a.cu_k[b] : 0;
    s.kv_len = a.cu_k ? a.cu_k[b + 1] - s.k_first : a.kv_len;
    s.valid = a.kv_counts ? a.kv_counts[b] : s.kv_len;
    s.offset = a.has_offset ? a.offset : s.valid - s.q_len;
    s.prefix = a.prefix ? a.prefix[b] : 0;
    return s;
}

// The keys that query `i` may look at, before bias and mask. Both ends rise with i.
inline KeyRange key_range(const QxAttention& a, const Sequence& s, int64_t i) {
    const int64_t at = i + s.offset;
    int64_t begin = 0, end = s.valid;
    if (a.causal) end = at + 1;
    if (a.window_right >= 0 && at + a.window_right + 1 < end) end = at + a.window_right + 1;
    if (a.causal && end < s.prefix) end = s.prefix;
    if (a.window_left >= 0 && at - a.window_left > 0) begin = at - a.window_left;
    if (end > s.valid) end = s.valid;
    if (begin > end) begin = end;
    return {begin, end < begin ? begin : end};
}

// Checks boundaries, counts and bias sizes, and cuts the call into tasks, the costly ones first. The task list lives in
// the calling thread's scratch (slot 1).
QxStatus make_plan(const QxAttention& args, int64_t threads, AttentionPlan* plan);

}  // namespace qx
