// The rows of queries that share a key head: their largest scores so far, totals and sums, which are scaled when a largest
// score rises, and what becomes of them: a result, or a part of one that is joined with others.
#pragma once
#include "decode_plan.h"
#include "scratch.h"
#include "vecmath.h"

namespace qx {
namespace QX_NS {

template <class D>
class DecodeRows {
protected:
    using T = typename D::T;
    static constexpr int row_tile = 4;

    const QxDecode& a;
    const DecodeTask& task;
    const SeenKeys seen;
    const int64_t group, rows, padded, size, wide;

    // Of one key head; sums are [padded][wide].
    struct Head {
        int64_t number;
        float *sums, *top, *total;
    };

    DecodeRows(const QxDecode& args, const DecodeTask& t)
        : a(args),
          task(t),
          seen(seen_keys(args, t.row)),
          group(args.heads / args.kv_heads),
          rows(group * args.queries[t.row]),
          padded((rows + row_tile - 1) / row_tile * row_tile),
          size(args.head_size),
          wide((size + width - 1) / width * width) {}

    void take(Carver& carve, Head& head) const {
        head.sums = carve.take<float>(size_t(padded * wide));
        head.top = carve.take<float>(size_t(padded));
        head.total = carve.take<float>(size_t(padded));
    }

    void begin(const Head& head) const {
        std::memset(head.sums, 0, size_t(padded * wide) * 4);
        for (int64_t r = 0; r < padded; ++r) {
            head.top[r] = -INFINITY;
            head.total[r] = 0.0f;
        }
    }

    // What scores are multiplied with: softmax is taken to the base of two, unless a soft cap comes before it.
    float factor(int64_t head) const {
        return float(a.scale) * a.key_scale[head * a.scale_step] * (a.softcap == 0.0 ? log2_e : 1.0f);
    }

    // Row r is query r / group of head number * group + r % group.
    const T* query(int64_t head, int64_t r) const {
        return static_cast<const T*>(a.q) + (a.first[task.row] + r / group) * a.q_token + (head * group + r % group) * a.q_head;
    }

    // Soft cap, slopes and masks; then exponentials beside the largest score, with the sums scaled to it. Scores are
    // [padded][ld]; `put` is called with a row, a place in it and the exponentials of two vectors.
    template <class Put>
    void soften(const Head& head, float* scores, int64_t ld, const int64_t* position, int64_t count, Put&& put) const {
        const int64_t steps = (count + 2 * width - 1) / (2 * width) * (2 * width);
        for (int64_t r = 0; r < rows; ++r) {
            float* row = scores + r * ld;
            shape(head, row, r, position, count, steps);
            V most = load(row);
            for (int64_t j = width; j < steps; j += width) most = max(load(row + j), most);
            const float before = head.top[r];
            float m = largest(most);
            if (!(m > before)) m = before;
            if (m == -INFINITY) {
                // Nothing is seen yet, or all of it is NaN: that shows in the result.
                for (int64_t j = 0; j < steps; ++j) row[j] = row[j] == row[j] ? 0.0f : row[j];
                for (int64_t j = 0; j < count; ++j) head.total[r] += row[j];
                for (int64_t j = 0; j < steps; j += 2 * width) put(r, j, load(row + j), load(row + j + width));
                continue;
            }
            const V shift = set1(m);
            V sum = set1(0);
            for (int64_t j = 0; j < steps; j += 2 * width) {
                const V p = exp2(load(row + j) - shift), next = exp2(load(row + j + width) - shift);
                put(r, j, p, next);
                sum = sum + (p + next);
            }
            if (m != before) {
                const float shrink = before == -INFINITY ? 1.0f : std::exp2(before - m);
                head.total[r] *= shrink;
                const V by = set1(shrink);
                if (before != -INFINITY)
                    for (int64_t d = 0; d < wide; d += width) store(head.sums + r * wide + d, load(head.sums + r * wide + d) * by);
                head.top[r] = m;
            }
            head.total[r] += QX_NS::sum(sum);
        }
    }

    // Divides the sums by the totals, or keeps them as a part.
    void end(const Head& head) const {
        if (task.parts == 1) {
            for (int64_t r = 0; r < rows; ++r) put(head.number, r, head.sums + r * wide, head.total[r]);
            return;
        }
        float* to = task.partial + (head.number - task.kv_head) * rows * (wide + 2);
        for (int64_t r = 0; r < rows; ++r, to += wide + 2) {
            to[0] = head.top[r];
            to[1] = head.total[r];
            std::memcpy(to + 2, head.sums + r * wide, size_t(wide) * 4);
        }
    }

private:
    void shape(const Head& head, float* row, int64_t r, const int64_t* position, int64_t count, int64_t steps) const {
        const int64_t at = int64_t(a.past[task.row]) + r / group;
        if (a.softcap != 0.0) {
            const V cap = set1(float(a.softcap) * log2_e), per_cap = set1(float(1.0 / a.softcap));
            for (int64_t j = 0; j < count; j += width) store(row + j, cap * tanh(load(row + j) * per_cap));
        }
        if (a.slopes)
            for (int64_t j = 0; j < count; ++j) row[j] += a.slopes[head.number * group + r % group] * log2_e * float(position[j]);
        if (position[count - 1] > at || (a.window > 0 && position[0] <= at - a.window))
            for (int64_t j = 0; j < count; ++j)
                if (position[j] > at || (a.window > 0 && position[j] <= at - a.window && position[j] >= a.sinks)) row[j] = -INFINITY;
        for (int64_t j = count; j < steps; ++j) row[j] = -INFINITY;
    }

    // Writes a row of the result: its sums divided by its total.
    void put(int64_t head, int64_t r, const float* from, float divisor) const {
        T* to = static_cast<T*>(a.out) + (a.first[task.row] + r / group) * a.out_token + (head * group + r % group) * a.out_head;
        const V scale = set1(a.value_scale[head * a.scale_step] / divisor);
        int64_t d = 0;
        for (; d + width <= size; d += width) D::store(to + d, load(from + d) * scale);
        if (const int rest = int(size - d)) D::store_part(to + d, load(from + d) * scale, rest);
    }

public:
    // Joins the parts of a sequence and its key heads, of which `task` is the first: their results lie in a line.
    bool join() const {
        void* base = scratch(0, size_t(wide) * 4);
        if (!base) return false;
        float* joined = static_cast<float*>(base);
        const int64_t each = task.heads * rows * (wide + 2);
        for (int64_t n = 0; n < task.heads * rows; ++n) {
            const float* first = task.partial + n * (wide + 2);
            float m = -INFINITY, sum = 0.0f;
            for (int p = 0; p < task.parts; ++p) m = first[p * each] > m ? first[p * each] : m;
            for (int64_t d = 0; d < wide; d += width) store(joined + d, set1(0));
            for (int p = 0; p < task.parts; ++p) {
                const float* part = first + p * each;
                if (part[0] == -INFINITY && part[1] == 0.0f) continue;  // it has seen no key
                const float by = part[0] == -INFINITY ? 1.0f : std::exp2(part[0] - m);
                sum += part[1] * by;
                const V weight = set1(by);
                for (int64_t d = 0; d < wide; d += width) store(joined + d, fma(load(part + 2 + d), weight, load(joined + d)));
            }
            put(task.kv_head + n / rows, n % rows, joined, sum);
        }
        return true;
    }
};

}  // namespace QX_NS
}  // namespace qx
