// One attention task: pack a block of keys and values, then for blocks of rows and chunks of keys: scores, exponentials,
// weighted values. Everything that a chunk touches is meant to stay in the level-1 cache.
//
// The exponentials are 2^(score - m), and any m gives the same result as long as nothing overflows: fp32 and bfloat16 have
// the same range. The quick way takes m = 0 and looks for no largest score. Where a row's sum leaves [least_total,
// most_total] (scores beyond about 41, or every key hidden), the task and those after it go the careful way: m is the
// largest score so far, and the sums are scaled whenever it rises. A NaN sends its own task that way and no other: what
// stands in one sequence must not change a bit of its neighbours.
#pragma once
#include "attention_rows.h"
#include "denormals.h"
#include "kernels.h"
#include "prefetch.h"
#include "scratch.h"

namespace qx {
namespace QX_NS {

template <class Core>
class AttentionRun {
    using D = typename Core::Memory;
    using T = typename D::T;
    using Word = typename Core::Word;
    using Probability = typename Core::Probability;

    // A row of the task: the keys it looks at, counted from keys.begin, and where it comes from.
    struct Row {
        int32_t low, high, query, head;
    };
    // The scores of a chunk that a row uses, whole steps; empty when it uses none.
    struct Span {
        int64_t from, to;
    };
    // A block of rows against a chunk of keys. Scores of keys [begin, end) of the chunk are worked out.
    struct Part {
        int64_t row, rows, first_key, count, begin, end;
        bool add;  // to what earlier chunks gave
    };

    static constexpr float most_total = 1.152921504606847e18f, least_total = 1.0f / most_total;  // 2^60

    const QxAttention& a;
    const AttentionPlan& plan;
    const AttentionTask& task;
    Prefetch& ahead;
    const int64_t group, rows;
    const Sequence s;
    const bool plain;
    const float factor;  // scores times this are exponents of two

    KeyRange keys;          // of all rows of the task
    int64_t block, blocks;  // keys packed at once, number of such blocks
    int64_t chunk;          // keys scored at once
    int64_t row_block;      // rows that are worked on together
    bool careful, poisoned = false;
    int64_t head, value_ld, score_ld, query_ld;
    Word *packed_keys, *packed_values, *queries;
    float *scores, *sums, *top, *totals, *lanes, *singles, *spare;
    uint8_t* spare_mask;
    Row* table;
    Span* spans;

public:
    AttentionRun(const AttentionPlan& p, const AttentionTask& t, Prefetch& prefetch)
        : a(*p.args),
          plan(p),
          task(t),
          ahead(prefetch),
          group(p.group),
          rows(t.end - t.begin),
          s(sequence_at(a, t.batch)),
          plain(plain_scores(a)),
          factor(plain ? float(a.scale) * log2_e : log2_e),
          careful(p.careful.load(std::memory_order_relaxed)) {}

    bool run() {
        if (!lay_out()) return false;
        if (!attempt()) {
            careful = true;
            if (!poisoned) plan.careful.store(true, std::memory_order_relaxed);
            attempt();
        }
        return true;
    }

private:
    bool lay_out() {
        const KeyRange first = key_range(a, s, task.begin / group), last = key_range(a, s, (task.end - 1) / group);
        keys = {first.begin, last.end > first.begin ? last.end : first.begin};
        const int64_t count = keys.end - keys.begin;
        blocks = (count + keys_at_once - 1) / keys_at_once;
        block = blocks > 1 ? round_up((count + blocks - 1) / blocks, 64) : count;
        const int64_t chunks = (block + Core::most_keys - 1) / Core::most_keys;
        chunk = chunks > 1 ? round_up((block + chunks - 1) / chunks, 64) : block;
        const int64_t columns = round_up(block, 64), padded = round_up(rows, Core::row_step);
        head = Core::words(round_up(a.head_size, Core::head_step));
        query_ld = round_up(head, 16);
        value_ld = round_up(a.value_size, width);
        score_ld = round_up(chunk, 64) + 16;  // off a power of two: rows must not share cache sets
        row_block = Core::most_rows < padded ? Core::most_rows : padded;
        const int64_t kept = blocks == 1 ? row_block : padded + row_block;
        void* base = nullptr;
        for (int pass = 0; pass < 2; ++pass) {
            Carver carve(base);
            packed_keys = carve.take<Word>(size_t(columns * head));
            packed_values = carve.take<Word>(size_t(Core::words(columns) * value_ld));
            queries = carve.take<Word>(size_t(row_block * query_ld));
            scores = carve.take<float>(size_t(row_block * score_ld));
            sums = carve.take<float>(size_t(kept * value_ld));
            top = carve.take<float>(size_t(rows));
            totals = carve.take<float>(size_t((rows + width) * width));
            lanes = carve.take<float>(size_t((row_block + width) * width));
            singles = carve.take<float>(size_t(row_block + width));
            spare = carve.take<float>(size_t(chunk));
            spare_mask = carve.take<uint8_t>(size_t(chunk));
            table = carve.take<Row>(size_t(rows));
            spans = carve.take<Span>(size_t(row_block));
            if (pass == 0 && !(base = scratch(0, carve.used()))) return false;
        }
        int64_t i = task.begin / group, in_group = task.begin % group;
        const bool same = !a.causal && a.window_left < 0 && a.window_right < 0;
        KeyRange range = first;
        for (int64_t r = 0; r < rows; ++i, in_group = 0) {
            if (!same) range = key_range(a, s, i);
            for (; in_group < group && r < rows; ++in_group, ++r)
                table[r] = {int32_t(range.begin - keys.begin), int32_t(range.end - keys.begin), int32_t(i), int32_t(task.kv_head * group + in_group)};
        }
        return true;
    }

    // False when the quick way does not do.
    bool attempt() {
        if (careful) fill(top, 0, rows, -INFINITY);
        fill(totals, 0, rows * width, 0.0f);
        if (blocks == 0) return finish(0, rows, sums);
        for (int64_t n = 0; n < blocks; ++n)
            if (!run_block(keys.begin + n * block, n > 0)) return false;
        return blocks == 1 || finish(0, rows, sums);
    }

    const T* keys_at(int64_t key) const { return static_cast<const T*>(a.k) + s.batch * a.k_batch + (s.k_first + key) * a.k_token + task.kv_head * a.k_head; }
    const T* values_at(int64_t key) const { return static_cast<const T*>(a.v) + s.batch * a.v_batch + (s.k_first + key) * a.v_token + task.kv_head * a.v_head; }
    const T* query_at(int64_t row) const { return static_cast<const T*>(a.q) + s.batch * a.q_batch + (s.q_first + table[row].query) * a.q_token + table[row].head * a.q_head; }
    T* out_at(int64_t row) const { return static_cast<T*>(a.out) + s.batch * a.out_batch + (s.q_first + table[row].query) * a.out_token + table[row].head * a.out_head; }

    bool run_block(int64_t first_key, bool add) {
        const int64_t count = keys.end - first_key < block ? keys.end - first_key : block;
        for (int64_t c = 0; c < count; c += chunk) {
            const int64_t n = count - c < chunk ? count - c : chunk;
            Core::pack_keys(keys_at(first_key + c), a.k_token, n, a.head_size, packed_keys + c * head);
            Core::pack_values(values_at(first_key + c), a.v_token, n, a.value_size, packed_values + Core::words(c) * value_ld);
        }
        for (int64_t row = 0; row < rows; row += row_block) {
            ahead.some();
            const int64_t n = rows - row < row_block ? rows - row : row_block;
            float* out = blocks == 1 ? sums : sums + row * value_ld;
            const bool direct = Core::reads_directly(a.q_token) && group == 1 && a.head_size % Core::head_step == 0 && n % Core::row_step == 0;
            const Word* q = direct ? reinterpret_cast<const Word*>(query_at(row)) : queries;
            const int64_t q_ld = direct ? Core::words(a.q_token) : query_ld;
            if (!direct)
                for (int64_t r = 0; r < n; ++r) Core::pack_row(query_at(row + r), a.head_size, queries + r * query_ld);
            bool started = add;
            for (int64_t c = 0; c < count; c += chunk) {
                Part p{row, n, first_key + c, count - c < chunk ? count - c : chunk, 0, 0, started};
                const int64_t past = p.first_key - keys.begin, low = table[row].low - past, high = table[row + n - 1].high - past;
                p.begin = low > 0 ? low / Core::score_step * Core::score_step : 0;
                p.end = high < p.count ? high : p.count;
                if (p.begin >= p.end) continue;
                run_part(p, c, q, q_ld, out);
                started = true;
            }
            if (!started) fill(out, 0, n * value_ld, 0.0f);
            if (blocks == 1 && !finish(row, row + n, out)) return false;
        }
        return true;
    }

    // `past` counts the packed keys before the chunk.
    void run_part(const Part& p, int64_t past, const Word* q, int64_t q_ld, float* out) {
        const int64_t padded = round_up(p.rows, Core::row_step), end = round_up(p.end, Core::key_step);
        Core::scores(padded, q, q_ld, packed_keys + past * head, p.count, a.head_size, p.begin, p.end, scores, score_ld);
        prepare(p);
        soften(p, out);
        const Word* values = packed_values + Core::words(past) * value_ld;
        Core::values(padded, reinterpret_cast<const Word*>(scores), score_ld, values, p.count, a.value_size, p.begin, end, out, value_ld, p.add);
    }

    // Finishes the scores of each row and notes which of them it uses; the careful way puts their largest into `singles`.
    void prepare(const Part& p) {
        constexpr int64_t step = Core::score_step;
        const int64_t past = p.first_key - keys.begin, last = round_up(p.end, step);
        const bool whole = plain && last <= p.count && table[p.row].high - past >= last && table[p.row + p.rows - 1].low - past <= p.begin;
        for (int64_t r = 0; r < p.rows; ++r) spans[r] = whole ? Span{p.begin, last} : prepare_row(p, r, scores + r * score_ld);
        if (!careful) return;
        for (int64_t r = 0; r < p.rows; ++r)
            store(lanes + r * width, largest_lanes(scores + r * score_ld + spans[r].from, spans[r].to - spans[r].from));
        combine_lanes(lanes, p.rows, singles, [](V x, V y) { return max(x, y); });
    }

    // Bias, mask and soft cap for row r of the part, and -inf for the keys at both ends that the row does not look at.
    Span prepare_row(const Part& p, int64_t r, float* row) {
        constexpr int64_t step = Core::score_step;
        const Row& at = table[p.row + r];
        const int64_t past = p.first_key - keys.begin;
        const int64_t low = at.low - past > p.begin ? at.low - past : p.begin, high = at.high - past < p.count ? at.high - past : p.count;
        if (low >= high) return {p.begin, p.begin};
        const Span span = {low / step * step, round_up(high, step)};
        fill(row, span.from, low, -INFINITY);
        fill(row, high, span.to, -INFINITY);
        if (!plain) {
            const int64_t n = high - low, key = p.first_key + low;
            const float* bias = a.bias ? bias_row(a, s.batch, at.head, at.query, key, n, spare) : nullptr;
            const uint8_t* mask = a.mask ? mask_row(a, s.batch, at.head, at.query, key, n, spare_mask) : nullptr;
            transform_row(row + low, n, float(a.scale), float(a.softcap), bias, mask);
        }
        return span;
    }

    // Turns the part's scores into probabilities (not yet divided by their sum) and adds their sums to `totals`.
    void soften(const Part& p, float* out) {
        const int64_t last = round_up(p.end, Core::score_step);
        for (int64_t r = 0; r < p.rows; ++r) {
            float* row = scores + r * score_ld;
            auto* probabilities = reinterpret_cast<Probability*>(row);
            const Span span = spans[r];
            float m = 0.0f;
            if (careful && !raise_top(p, r, m, out + r * value_ld)) {
                Core::clear(probabilities, p.begin, last);
                continue;
            }
            const V sum = Core::exponentials(row + span.from, span.to - span.from, factor, m, probabilities + span.from);
            if (span.from > p.begin) Core::clear(probabilities, p.begin, span.from);
            if (span.to < last) Core::clear(probabilities, span.to, last);
            float* total = totals + (p.row + r) * width;
            store(total, load(total) + sum);
        }
    }

    // The careful way's m for a row; what was summed with a lower one is scaled. False while the row has seen no key.
    bool raise_top(const Part& p, int64_t r, float& m, float* out) {
        float& before = top[p.row + r];
        m = singles[r] * factor;
        if (m < before) m = before;
        if (m == -INFINITY) {
            if (!any_nan(scores + r * score_ld + spans[r].from, spans[r].to - spans[r].from)) return false;
            m = 0.0f;  // a NaN among keys that are all hidden: it shows in the result
        }
        if (m != before && before != -INFINITY) {
            const V shrink = set1(std::exp2(before - m));
            for (int64_t c = 0; c < value_ld; c += width) store(out + c, load(out + c) * shrink);
            float* total = totals + (p.row + r) * width;
            store(total, load(total) * shrink);
        }
        before = m;
        return true;
    }

    // Writes rows [begin, end): their sums, which start at `from`, divided by their totals. False when a total is out of
    // the quick way's range.
    bool finish(int64_t begin, int64_t end, const float* from) {
        for (int64_t first = begin; first < end; first += row_block) {
            const int64_t last = first + row_block < end ? first + row_block : end;
            combine_lanes(totals + first * width, last - first, singles, [](V x, V y) { return x + y; });
            for (int64_t row = first; row < last; ++row, from += value_ld) {
                T* out = out_at(row);
                const float total = singles[row - first];
                if (!careful && !(total >= least_total && total <= most_total) && table[row].low < table[row].high) {
                    poisoned = total != total;
                    return false;
                }
                if (total == 0.0f) {
                    empty(out);
                    continue;
                }
                const V scale = set1(1.0f / total);
                int64_t c = 0;
                for (; c + 2 * width <= a.value_size; c += 2 * width) D::store_two(out + c, load(from + c) * scale, load(from + c + width) * scale);
                for (; c + width <= a.value_size; c += width) D::store(out + c, load(from + c) * scale);
                if (const int rest = int(a.value_size - c)) D::store_part(out + c, load(from + c) * scale, rest);
            }
        }
        return true;
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
static bool run_attention(const AttentionPlan& plan, const AttentionTask& task, Prefetch& ahead) {
    const FlushDenormals flush;
    return AttentionRun<Core>(plan, task, ahead).run();
}

}  // namespace QX_NS
}  // namespace qx
