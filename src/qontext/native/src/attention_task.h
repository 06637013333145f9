// One attention task: pack a block of keys and values, then for blocks of rows: scores, softmax, weighted values.
//
// All of a row's scores are there before its exponentials are taken; a sequence longer than `keys_at_once` goes through
// in blocks, and a row's sums are scaled whenever its largest score rises (online softmax).
#pragma once
#include "attention_rows.h"
#include "kernels.h"
#include "panels.h"
#include "scratch.h"

namespace qx {
namespace QX_NS {

template <class Core>
class AttentionRun {
    using D = typename Core::Memory;
    using T = typename D::T;
    using Word = typename Core::Word;

    const QxAttention& a;
    const AttentionTask& task;
    const int64_t group;
    const Sequence s;
    const bool plain;
    const float factor;  // scores times this are exponents of two

    KeyRange keys;            // of all rows of the task
    int64_t block, blocks;    // keys in a block, number of blocks
    int64_t row_block;        // rows that are worked on together
    int64_t head, value_ld, score_ld, query_ld;
    Word *packed_keys, *packed_values, *queries;
    float *scores, *sums, *top, *total, *spare;
    uint8_t* spare_mask;

public:
    AttentionRun(const AttentionPlan& plan, const AttentionTask& t)
        : a(*plan.args),
          task(t),
          group(plan.group),
          s(sequence_at(a, t.batch)),
          plain(plain_scores(a)),
          factor(plain ? float(a.scale) * log2_e : log2_e) {}

    bool run() {
        if (!lay_out()) return false;
        for (int64_t n = 0; n < blocks; ++n) run_block(keys.begin + n * block);
        if (blocks != 1) finish(task.begin, task.end, sums);
        return true;
    }

private:
    int64_t query(int64_t row) const { return row / group; }
    int64_t head_of(int64_t row) const { return task.kv_head * group + row % group; }

    bool lay_out() {
        const KeyRange first = key_range(a, s, query(task.begin)), last = key_range(a, s, query(task.end - 1));
        keys = {first.begin, last.end > first.begin ? last.end : first.begin};
        const int64_t count = keys.end - keys.begin, rows = task.end - task.begin;
        blocks = (count + keys_at_once - 1) / keys_at_once;
        block = blocks ? round_up((count + blocks - 1) / blocks, 64) : 64;
        if (blocks == 1) block = count;
        head = Core::words(round_up(a.head_size, Core::head_step));
        query_ld = round_up(head, 16);
        value_ld = round_up(a.value_size, width);
        const int64_t columns = round_up(block, 64);
        score_ld = columns + 16;  // off a power of two: rows must not share cache sets
        row_block = Core::row_block(score_ld);
        if (row_block > round_up(rows, Core::row_step)) row_block = round_up(rows, Core::row_step);
        const int64_t kept = blocks == 1 ? row_block : round_up(rows, Core::row_step) + row_block;
        void* base = nullptr;
        for (int pass = 0; pass < 2; ++pass) {
            Carver carve(base);
            packed_keys = carve.take<Word>(size_t(columns * head));
            packed_values = carve.take<Word>(size_t(Core::words(columns) * value_ld));
            queries = carve.take<Word>(size_t(row_block * query_ld));
            scores = carve.take<float>(size_t(row_block * score_ld));
            sums = carve.take<float>(size_t(kept * value_ld));
            top = carve.take<float>(size_t(rows));
            total = carve.take<float>(size_t(rows));
            spare = carve.take<float>(size_t(columns));
            spare_mask = carve.take<uint8_t>(size_t(columns));
            if (pass == 0 && !(base = scratch(0, carve.used()))) return false;
        }
        fill(top, 0, rows, -INFINITY);
        fill(total, 0, rows, 0.0f);
        if (blocks != 1) fill(sums, 0, rows * value_ld, 0.0f);
        return true;
    }

    const T* keys_at(int64_t key) const { return static_cast<const T*>(a.k) + s.batch * a.k_batch + (s.k_first + key) * a.k_token + task.kv_head * a.k_head; }
    const T* values_at(int64_t key) const { return static_cast<const T*>(a.v) + s.batch * a.v_batch + (s.k_first + key) * a.v_token + task.kv_head * a.v_head; }
    const T* query_at(int64_t row) const { return static_cast<const T*>(a.q) + s.batch * a.q_batch + (s.q_first + query(row)) * a.q_token + head_of(row) * a.q_head; }
    T* out_at(int64_t row) const { return static_cast<T*>(a.out) + s.batch * a.out_batch + (s.q_first + query(row)) * a.out_token + head_of(row) * a.out_head; }

    void run_block(int64_t first_key) {
        const int64_t count = keys.end - first_key < block ? keys.end - first_key : block;
        Core::pack_keys(keys_at(first_key), a.k_token, count, a.head_size, packed_keys);
        Core::pack_values(values_at(first_key), a.v_token, count, a.value_size, packed_values);
        for (int64_t row = task.begin; row < task.end; row += row_block) {
            const int64_t rows = task.end - row < row_block ? task.end - row : row_block;
            run_rows(row, rows, first_key, count);
        }
    }

    // Rows [row, row + rows) against keys [first_key, first_key + count).
    void run_rows(int64_t row, int64_t rows, int64_t first_key, int64_t count) {
        const int64_t low = key_range(a, s, query(row)).begin - first_key, high = key_range(a, s, query(row + rows - 1)).end - first_key;
        int64_t begin = low > 0 ? low / Core::score_step * Core::score_step : 0;
        int64_t end = high < count ? high : count;
        float* out = blocks == 1 ? sums : sums + (row - task.begin) * value_ld;
        if (begin < end) {
            const int64_t padded_rows = round_up(rows, Core::row_step);
            for (int64_t r = 0; r < rows; ++r) Core::pack_row(query_at(row + r), a.head_size, queries + r * query_ld);
            Core::scores(padded_rows, queries, query_ld, packed_keys, count, a.head_size, begin, end, scores, score_ld);
            for (int64_t r = 0; r < rows; ++r) soften(row + r, scores + r * score_ld, first_key, count, begin, end, out + r * value_ld);
            const int64_t key_end = round_up(end, Core::key_step);
            Core::values(padded_rows, reinterpret_cast<const Word*>(scores), score_ld, packed_values, count, a.value_size, begin, key_end, out, value_ld, blocks != 1);
        }
        if (blocks == 1) finish(row, row + rows, out);
    }

    // Turns one row of scores into probabilities (not yet divided by their sum) over [begin, end) of the block.
    void soften(int64_t row, float* scores_row, int64_t first_key, int64_t count, int64_t begin, int64_t end, float* out) {
        constexpr int64_t step = Core::score_step;
        auto* probabilities = reinterpret_cast<typename Core::Probability*>(scores_row);
        const int64_t last = round_up(end, step);
        const KeyRange range = key_range(a, s, query(row));
        int64_t low = range.begin - first_key, high = range.end - first_key;
        low = low > begin ? low : begin;
        high = high < count ? high : count;
        float &m = top[row - task.begin], &l = total[row - task.begin];
        if (low >= high) return Core::clear(probabilities, begin, last);
        const int64_t from = low / step * step, to = round_up(high, step);
        fill(scores_row, from, low, -INFINITY);
        fill(scores_row, high, to, -INFINITY);
        if (!plain) {
            const int64_t q = query(row), h = head_of(row), n = high - low, key = first_key + low;
            const float* bias = a.bias ? bias_row(a, s.batch, h, q, key, n, spare) : nullptr;
            const uint8_t* mask = a.mask ? mask_row(a, s.batch, h, q, key, n, spare_mask) : nullptr;
            transform_row(scores_row + low, n, float(a.scale), float(a.softcap), bias, mask);
        }
        float highest = largest_of(scores_row + from, to - from) * factor;
        if (highest < m) highest = m;
        if (highest == -INFINITY) {
            if (!any_nan(scores_row + low, high - low)) return Core::clear(probabilities, begin, last);
            highest = 0.0f;  // a NaN among keys that are all hidden: it shows in the result
        }
        const float sum = Core::exponentials(scores_row + from, to - from, factor, highest, probabilities + from);
        Core::clear(probabilities, begin, from);
        Core::clear(probabilities, to, last);
        if (blocks != 1 && highest != m && l != 0.0f) {
            const float shrink = std::exp2(m - highest);
            l *= shrink;
            for (int64_t c = 0; c < value_ld; c += width) store(out + c, load(out + c) * set1(shrink));
        }
        m = highest;
        l += sum;
    }

    // out = sums / total for rows [begin, end), whose sums start at `from`.
    void finish(int64_t begin, int64_t end, const float* from) {
        for (int64_t row = begin; row < end; ++row, from += value_ld) {
            T* out = out_at(row);
            const float l = total[row - task.begin];
            if (l == 0.0f) {
                empty(out);
                continue;
            }
            const V scale = set1(1.0f / l);
            int64_t c = 0;
            for (; c + width <= a.value_size; c += width) D::store(out + c, load(from + c) * scale);
            if (const int rest = int(a.value_size - c)) D::store_part(out + c, load(from + c) * scale, rest);
        }
    }

    // A row without a key: zeros, or the mean of all values as a finite fill of every score gives it.
    void empty(T* out) {
        const bool mean = a.empty_row == QX_UNIFORM && s.kv_len > 0;
        for (int64_t c = 0; c < a.value_size; c += width) {
            const int n = int(a.value_size - c < width ? a.value_size - c : width);
            V v = set1(0);
            if (mean) {
                for (int64_t key = 0; key < s.kv_len; ++key) v = v + D::load_part(values_at(key) + c, n);
                v = v * set1(1.0f / float(s.kv_len));
            }
            D::store_part(out + c, v, n);
        }
    }
};

template <class Core>
static bool run_attention(const AttentionPlan& plan, const AttentionTask& task) {
    return AttentionRun<Core>(plan, task).run();
}

}  // namespace QX_NS
}  // namespace qx
