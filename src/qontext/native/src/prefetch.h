// Brings what a thread will read in its next run of tasks near, a few rows at a time, while it computes the current one.
//
// A head's part of a token is short and the next token's far away, a pattern that processors do not fetch ahead by
// themselves. The run's heads of a token lie together.
#pragma once
#include "attention_plan.h"

namespace qx {

class Prefetch {
    struct Rows {
        const char* at;
        int64_t step, left, bytes;
    };
    // More than this would push out what the current run needs.
    static constexpr int64_t most_bytes = 1 << 20;

    Rows rows_[3] = {};
    int64_t each_ = 0;  // rows of each kind per call

    static void take(Rows& r, int64_t count) {
        for (; count > 0 && r.left > 0; --count, --r.left, r.at += r.step)
            for (int64_t b = 0; b < r.bytes; b += 64) __builtin_prefetch(r.at + b, 0, 3);
    }

public:
    Prefetch() = default;

    // For tasks [first, last] of one sequence, spread over about `calls` calls of `some`.
    Prefetch(const AttentionPlan& plan, const AttentionTask& first, const AttentionTask& last, int64_t calls) {
        const QxAttention& a = *plan.args;
        const Sequence s = sequence_at(a, first.batch);
        const int64_t value_bytes = a.dtype == QX_F32 ? 4 : 2, heads = first.batch == last.batch ? last.kv_head - first.kv_head + 1 : 1;
        const auto rows = [&](const void* base, int64_t batch, int64_t token, int64_t head, int64_t first_row, int64_t count, int64_t h, int64_t hs) {
            const char* at = static_cast<const char*>(base) + (s.batch * batch + first_row * token + h * head) * value_bytes;
            return Rows{at, token * value_bytes, count, hs * head * value_bytes};
        };
        const int64_t keys = s.valid < keys_at_once ? s.valid : keys_at_once;
        const int64_t query = first.begin / plan.group, queries = (first.end - 1) / plan.group - query + 1;
        rows_[0] = rows(a.q, a.q_batch, a.q_token, a.q_head, s.q_first + query, queries, first.kv_head * plan.group, heads * plan.group);
        rows_[1] = rows(a.k, a.k_batch, a.k_token, a.k_head, s.k_first, keys, first.kv_head, heads);
        rows_[2] = rows(a.v, a.v_batch, a.v_token, a.v_head, s.k_first, keys, first.kv_head, heads);
        if (queries * rows_[0].bytes + keys * (rows_[1].bytes + rows_[2].bytes) > most_bytes) return;
        const int64_t most = keys > queries ? keys : queries;
        each_ = (most + calls - 1) / calls;
    }

    void some() {
        if (each_)
            for (Rows& r : rows_) take(r, each_);
    }
};

}  // namespace qx
