#include "attention_plan.h"

#include <cstdlib>

#include "scratch.h"

namespace qx {

namespace {

// Rows of one task at least: packing keys and values costs about as much as eight rows.
constexpr int64_t fewest_rows = 96;
constexpr int64_t tasks_per_thread = 4;
// And at most, where the keys come in several blocks and each row keeps its sums between them.
constexpr int64_t most_rows = 384;

struct Weighed {
    int64_t cost;
    int32_t batch;
};

int dearest_first(const void* x, const void* y) {
    const Weighed &a = *static_cast<const Weighed*>(x), &b = *static_cast<const Weighed*>(y);
    if (a.cost != b.cost) return a.cost < b.cost ? 1 : -1;
    return a.batch < b.batch ? -1 : a.batch > b.batch;
}

QxStatus check_sequence(const QxAttention& a, int64_t b) {
    if (a.cu_q && (a.cu_q[b] < 0 || a.cu_q[b + 1] < a.cu_q[b] || a.cu_q[b + 1] > a.q_len)) return QX_BAD_BOUNDARIES;
    if (a.cu_k && (a.cu_k[b] < 0 || a.cu_k[b + 1] < a.cu_k[b] || a.cu_k[b + 1] > a.kv_len)) return QX_BAD_BOUNDARIES;
    const Sequence s = sequence_at(a, b);
    if (s.valid < 0 || s.valid > s.kv_len || s.prefix < 0) return QX_BAD_COUNTS;
    const auto small = [&](int64_t rows, int64_t row_stride, int64_t columns, int64_t column_stride) {
        return (row_stride && rows < s.q_len) || (column_stride && columns < s.valid);
    };
    if (a.bias && small(a.bias_rows, a.bias_q, a.bias_columns, a.bias_k)) return QX_BIAS_TOO_SMALL;
    if (a.mask && small(a.mask_rows, a.mask_q, a.mask_columns, a.mask_k)) return QX_BIAS_TOO_SMALL;
    return QX_OK;
}

}  // namespace

QxStatus make_plan(const QxAttention& a, int64_t threads, AttentionPlan* plan) {
    plan->args = &a;
    plan->group = a.heads / a.kv_heads;
    int64_t pairs = 0, rows = 0, keys = 0;  // query-key pairs, rows and keys of one key head
    for (int64_t b = 0; b < a.batch; ++b) {
        if (const QxStatus status = check_sequence(a, b)) return status;
        const Sequence s = sequence_at(a, b);
        pairs += s.q_len * s.valid * plan->group;
        rows += s.q_len * plan->group;
        keys += s.valid;
    }
    plan->bytes = (rows * a.head_size + keys * (a.head_size + a.value_size)) * a.kv_heads * (a.dtype == QX_F32 ? 4 : 2);
    // A share is what one task should cost, in pairs of one key head.
    const int64_t wanted = threads > 1 ? threads * tasks_per_thread : 1;
    const int64_t share = pairs * a.kv_heads / wanted + 1;
    const auto rows_of = [&](const Sequence& s) {
        const int64_t all = s.q_len * plan->group;
        const int64_t limit = s.valid > keys_at_once && all > most_rows ? most_rows : all;
        if (threads <= 1 || s.valid == 0) return limit;
        const int64_t parts = (all * s.valid + share - 1) / share;
        int64_t each = (all + parts - 1) / (parts > 0 ? parts : 1);
        each = each < fewest_rows ? fewest_rows : (each + 47) / 48 * 48;
        return each < limit ? each : limit;
    };
    int64_t most = 0;
    for (int64_t b = 0; b < a.batch; ++b) {
        const Sequence s = sequence_at(a, b);
        const int64_t each = rows_of(s);
        if (each > 0) most += (s.q_len * plan->group + each - 1) / each * a.kv_heads;
    }
    Carver size(nullptr);
    size.take<AttentionTask>(size_t(most));
    size.take<Weighed>(size_t(a.batch));
    Carver carve(scratch(1, size.used() + 64));
    AttentionTask* tasks = carve.take<AttentionTask>(size_t(most));
    Weighed* order = carve.take<Weighed>(size_t(a.batch));
    if (!tasks) return QX_NO_MEMORY;
    for (int64_t b = 0; b < a.batch; ++b) {
        const Sequence s = sequence_at(a, b);
        order[b] = {s.q_len * s.valid, int32_t(b)};
    }
    if (a.cu_q || a.kv_counts) std::qsort(order, size_t(a.batch), sizeof(Weighed), dearest_first);
    int64_t count = 0;
    for (int64_t i = 0; i < a.batch; ++i) {
        const int32_t b = order[i].batch;
        const Sequence s = sequence_at(a, b);
        const int64_t all = s.q_len * plan->group, each = rows_of(s);
        for (int32_t h = 0; h < a.kv_heads; ++h) {
            // From the end: with a causal mask the last rows cost most.
            for (int64_t part = each > 0 ? (all + each - 1) / each : 0; part-- > 0;) {
                const int64_t end = (part + 1) * each;
                tasks[count++] = {b, h, part * each, end < all ? end : all};
            }
        }
    }
    plan->tasks = tasks;
    plan->count = count;
    return QX_OK;
}

}  // namespace qx
