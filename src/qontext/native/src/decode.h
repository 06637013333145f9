// One task of attention over a cache: the queries that share a key head, against a run of keys that are read where they
// lie. The sums run beside the largest score so far, and are scaled when it rises.
//
// The rows of queries are worked on four at a time, so that a key or value is widened once for all of them. Where queries
// are bfloat16 and the processor multiplies pairs of them (decode_pairs.h), a cache of bfloat16 is read as it lies, and
// one of eight bits becomes bfloat16 once for all rows.
#pragma once
#include "cached.h"
#include "decode_pairs.h"
#include "decode_plan.h"
#include "denormals.h"
#include "scratch.h"
#include "vecmath.h"

namespace qx {
namespace QX_NS {

template <class D, class C>
class DecodeRun {
    using T = typename D::T;
    using Cached = typename C::T;
    static constexpr int row_tile = 4, key_tile = width / row_tile, column_tile = 4;
    static_assert(width % row_tile == 0 && decode_keys % width == 0, "tiles fill vectors");

    const QxDecode& a;
    const DecodeTask& task;
    const SeenKeys seen;
    const int64_t group, rows, padded, size, wide;
    const bool paired;
    float *queries, *sums, *scores, *top, *total;
    uint16_t *pair_queries, *pair_scores, *pair_rows;
    const Cached *keys[2][decode_keys + 4], *values[2][decode_keys + 4];
    int64_t positions[2][decode_keys];

public:
    DecodeRun(const QxDecode& args, const DecodeTask& t)
        : a(args),
          task(t),
          seen(seen_keys(args, t.row)),
          group(args.heads / args.kv_heads),
          rows(group * args.queries[t.row]),
          padded((rows + row_tile - 1) / row_tile * row_tile),
          size(args.head_size),
          wide((size + width - 1) / width * width),
          paired(multiplies_pairs<D, C> && size % pair_step == 0) {}

    bool run() {
        void* base = nullptr;
        for (int pass = 0; pass < 2; ++pass) {
            Carver carve(base);
            queries = carve.take<float>(size_t(padded * wide));
            sums = carve.take<float>(size_t(padded * wide));
            scores = carve.take<float>(size_t(padded * decode_keys));
            top = carve.take<float>(size_t(padded));
            total = carve.take<float>(size_t(padded));
            pair_queries = carve.take<uint16_t>(paired ? size_t(padded * size) : 0);
            pair_scores = carve.take<uint16_t>(paired ? size_t(padded * decode_keys) : 0);
            pair_rows = carve.take<uint16_t>(paired && !holds_pairs<C> ? size_t(decode_keys * size) : 0);
            if (pass == 0 && !(base = scratch(0, carve.used()))) return false;
        }
        take_queries();
        int at = 0;
        find(task.begin, at);
        for (int64_t n = task.begin; n < task.end; n += decode_keys, at ^= 1) {
            const int64_t count = task.end - n < decode_keys ? task.end - n : decode_keys;
            const bool more = n + decode_keys < task.end;
            if (more) find(n + decode_keys, at ^ 1);
            score(at, count, more);
            soften(at, count);
            add_values(at, count, more);
        }
        if (paired) in_order(sums, padded, wide, size);
        if (task.parts == 1) finish();
        else keep();
        return true;
    }

private:
    float factor() const { return float(a.scale) * a.key_scale[task.kv_head * a.scale_step]; }

    // Row r is query r / group of head kv_head * group + r % group; the factor of the scores is put into it.
    void take_queries() {
        const float by = factor() * (a.softcap == 0.0 ? log2_e : 1.0f);
        const V scale = set1(by);
        if (paired) std::memset(pair_queries, 0, size_t(padded * size) * 2);
        for (int64_t r = 0; r < padded; ++r) {
            float* to = queries + r * wide;
            top[r] = -INFINITY;
            total[r] = 0.0f;
            for (int64_t d = 0; d < wide; d += width) {
                store(sums + r * wide + d, set1(0));
                store(to + d, set1(0));
            }
            if (r >= rows) continue;
            const T* from = static_cast<const T*>(a.q) + (a.first[task.row] + r / group) * a.q_token + (task.kv_head * group + r % group) * a.q_head;
            if (paired) std::memcpy(pair_queries + r * size, from, size_t(size) * 2);
            int64_t d = 0;
            for (; d + width <= size; d += width) store(to + d, D::load(from + d) * scale);
            if (const int rest = int(size - d)) store(to + d, D::load_part(from + d, rest) * scale);
        }
    }

    // Addresses of the keys and values from the n-th seen one on, run by run of tokens that lie one after the other.
    void find(int64_t n, int which) {
        const int64_t count = task.end - n < decode_keys ? task.end - n : decode_keys;
        const Cached* base = static_cast<const Cached*>(a.cache) + task.kv_head * a.head;
        for (int64_t i = 0; i < count;) {
            const int64_t position = seen.position(n + i), gap = n + i < seen.kept ? seen.kept - n - i : count;
            int64_t run = a.indirection ? 1 : straight(a, position);
            if (run > count - i) run = count - i;
            if (run > gap) run = gap;
            const Cached* at = base + place_of(a, slot_of(a, task.row, position), position);
            for (int64_t k = 0; k < run; ++k, ++i, at += a.token) {
                positions[which][i] = position + k;
                keys[which][i] = at;
                values[which][i] = at + a.part;
            }
        }
        // A tile of keys is read whole, and values are brought near in twos.
        for (int64_t i = count; i < decode_keys + 4; ++i) {
            keys[which][i] = keys[which][count - 1];
            values[which][i] = values[which][count - 1];
        }
    }

    // scores = Q K^T; the keys of the next round are brought near meanwhile.
    void score(int which, int64_t count, bool more) {
        if (paired) return score_in_pairs(which, count, more);
        const int64_t even = size - size % width;
        const int rest = int(size - even);
        for (int64_t j = 0; j < count; j += key_tile) {
            const Cached* const* k = keys[which] + j;
            if (more)
                for (int i = 0; i < key_tile; ++i) bring_near(keys[which ^ 1][j + i], size);
            for (int64_t r = 0; r < padded; r += row_tile) {
                const float* q = queries + r * wide;
                V sum[width];
#pragma GCC unroll 16
                for (int i = 0; i < width; ++i) sum[i] = set1(0);
                for (int64_t d = 0; d < even; d += width) {
                    V key[key_tile];
#pragma GCC unroll 16
                    for (int i = 0; i < key_tile; ++i) key[i] = C::load(k[i] + d);
#pragma GCC unroll 16
                    for (int row = 0; row < row_tile; ++row) {
                        const V query = load(q + row * wide + d);
#pragma GCC unroll 16
                        for (int i = 0; i < key_tile; ++i) sum[row * key_tile + i] = fma(query, key[i], sum[row * key_tile + i]);
                    }
                }
                if (rest)
#pragma GCC unroll 16
                    for (int i = 0; i < key_tile; ++i) {
                        const V key = C::load_part(k[i] + even, rest);
#pragma GCC unroll 16
                        for (int row = 0; row < row_tile; ++row) sum[row * key_tile + i] = fma(load(q + row * wide + even), key, sum[row * key_tile + i]);
                    }
                float folded[width];
                store(folded, fold(sum, [](V x, V y) { return x + y; }));
#pragma GCC unroll 16
                for (int row = 0; row < row_tile; ++row)
#pragma GCC unroll 16
                    for (int i = 0; i < key_tile; ++i) scores[(r + row) * decode_keys + j + i] = folded[row * key_tile + i];
            }
        }
    }

    void score_in_pairs(int which, int64_t count, bool more) {
        const float by = factor() * (a.softcap == 0.0 ? log2_e : 1.0f);
        for (int64_t j = 0; j < count; j += width) {
            const uint16_t* pairs[width];
            for (int i = 0; i < width; ++i) {
                if (more && !holds_pairs<C>) bring_near(keys[which ^ 1][j + i], size);
                pairs[i] = as_pairs<C>(keys[which][j + i], size, pair_rows + i * size);
            }
            const Cached* const* next = more && holds_pairs<C> ? keys[which ^ 1] + j : nullptr;
            for (int64_t r = 0; r < padded; r += row_tile, next = nullptr) score_pairs(pair_queries + r * size, pairs, next, size, by, scores + r * decode_keys + j);
        }
    }

    // Soft cap, slopes and masks; then exponentials beside the largest score, with the sums scaled to it.
    void soften(int which, int64_t count) {
        const int64_t* position = positions[which];
        const int64_t steps = (count + width - 1) / width * width;
        for (int64_t r = 0; r < rows; ++r) {
            float* row = scores + r * decode_keys;
            const int64_t head = task.kv_head * group + r % group, at = int64_t(a.past[task.row]) + r / group;
            if (a.softcap != 0.0) {
                const V cap = set1(float(a.softcap) * log2_e), per_cap = set1(float(1.0 / a.softcap));
                for (int64_t j = 0; j < steps; j += width) store(row + j, cap * tanh(load(row + j) * per_cap));
            }
            if (a.slopes)
                for (int64_t j = 0; j < count; ++j) row[j] += a.slopes[head] * log2_e * float(position[j]);
            if (position[count - 1] > at || (a.window > 0 && position[0] <= at - a.window))
                for (int64_t j = 0; j < count; ++j)
                    if (position[j] > at || (a.window > 0 && position[j] <= at - a.window && position[j] >= a.sinks)) row[j] = -INFINITY;
            for (int64_t j = count; j < steps; ++j) row[j] = -INFINITY;
            V most = load(row);
            for (int64_t j = width; j < steps; j += width) most = max(load(row + j), most);
            const float before = top[r];
            float m = largest(most);
            if (!(m > before)) m = before;
            if (m == -INFINITY) {
                // Nothing is seen yet, or all of it is NaN: that shows in the result.
                for (int64_t j = 0; j < steps; ++j) row[j] = row[j] == row[j] ? 0.0f : row[j];
                for (int64_t j = 0; j < count; ++j) total[r] += row[j];
                continue;
            }
            const V shift = set1(m);
            V sum = set1(0);
            for (int64_t j = 0; j < steps; j += width) {
                const V p = exp2(load(row + j) - shift);
                store(row + j, p);
                sum = sum + p;
            }
            if (m != before) {
                const float shrink = before == -INFINITY ? 1.0f : std::exp2(before - m);
                total[r] *= shrink;
                const V by = set1(shrink);
                if (before != -INFINITY)
                    for (int64_t d = 0; d < wide; d += width) store(sums + r * wide + d, load(sums + r * wide + d) * by);
                top[r] = m;
            }
            total[r] += QX_NS::sum(sum);
        }
        for (int64_t r = rows; r < padded; ++r)
            for (int64_t j = 0; j < steps; ++j) scores[r * decode_keys + j] = 0.0f;
        if (paired)
            for (int64_t r = 0; r < padded; ++r)
                for (int64_t j = 0; j < steps; j += width) store_bf16(pair_scores + r * decode_keys + j, load(scores + r * decode_keys + j));
    }

    void add_values(int which, int64_t count, bool more) {
        const uint16_t* pairs[decode_keys + 4];
        if (paired)
            for (int64_t j = 0; j < count; ++j) {
                if (more && !holds_pairs<C>) bring_near(values[which ^ 1][j], size);
                pairs[j] = as_pairs<C>(values[which][j], size, pair_rows + j * size);
            }
        for (int64_t r = 0; r < padded; r += row_tile) {
            const bool fetch = more && r == 0;
            if (paired) {
                const Cached* const* next = fetch && holds_pairs<C> ? values[which ^ 1] : nullptr;
                add_pairs(pair_scores + r * decode_keys, pairs, next, count, size, sums + r * wide, wide);
                continue;
            }
            int64_t c = 0;
            for (; c + column_tile * width <= size; c += column_tile * width) columns<column_tile>(which, count, r, c, fetch);
            for (; c + width <= size; c += width) columns<1>(which, count, r, c, fetch);
            if (const int rest = int(size - c)) last_columns(which, count, r, c, rest);
        }
    }

    template <int N>
    void columns(int which, int64_t count, int64_t r, int64_t c, bool fetch) {
        V sum[row_tile][N];
#pragma GCC unroll 16
        for (int row = 0; row < row_tile; ++row)
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) sum[row][n] = load(sums + (r + row) * wide + c + n * width);
        const float* p = scores + r * decode_keys;
        for (int64_t j = 0; j < count; ++j) {
            const Cached* from = values[which][j] + c;
            if (fetch) bring_near(values[which ^ 1][j] + c, N * width);
            V value[N];
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) value[n] = C::load(from + n * width);
#pragma GCC unroll 16
            for (int row = 0; row < row_tile; ++row) {
                const V weight = set1(p[row * decode_keys + j]);
#pragma GCC unroll 16
                for (int n = 0; n < N; ++n) sum[row][n] = fma(weight, value[n], sum[row][n]);
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < row_tile; ++row)
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) store(sums + (r + row) * wide + c + n * width, sum[row][n]);
    }

    void last_columns(int which, int64_t count, int64_t r, int64_t c, int rest) {
#pragma GCC unroll 16
        for (int row = 0; row < row_tile; ++row) {
            float* to = sums + (r + row) * wide + c;
            V sum = load(to);
            for (int64_t j = 0; j < count; ++j) sum = fma(set1(scores[(r + row) * decode_keys + j]), C::load_part(values[which][j] + c, rest), sum);
            store(to, sum);
        }
    }

    // Writes a row of the result: its sums divided by its total.
    void put(int64_t r, const float* from, float divisor) {
        T* to = static_cast<T*>(a.out) + (a.first[task.row] + r / group) * a.out_token + (task.kv_head * group + r % group) * a.out_head;
        const V scale = set1(a.value_scale[task.kv_head * a.scale_step] / divisor);
        int64_t d = 0;
        for (; d + width <= size; d += width) D::store(to + d, load(from + d) * scale);
        if (const int rest = int(size - d)) D::store_part(to + d, load(from + d) * scale, rest);
    }

    void finish() {
        for (int64_t r = 0; r < rows; ++r) put(r, sums + r * wide, total[r]);
    }

    void keep() {
        float* to = task.partial;
        for (int64_t r = 0; r < rows; ++r, to += wide + 2) {
            to[0] = top[r];
            to[1] = total[r];
            std::memcpy(to + 2, sums + r * wide, size_t(wide) * 4);
        }
    }

public:
    // Joins the parts of a sequence and key head, of which `task` is the first: their partial results lie in a line.
    bool join() {
        void* base = scratch(0, size_t(wide) * 4);
        if (!base) return false;
        float* joined = static_cast<float*>(base);
        const int64_t each = rows * (wide + 2);
        for (int64_t r = 0; r < rows; ++r) {
            const float* first = task.partial + r * (wide + 2);
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
            put(r, joined, sum);
        }
        return true;
    }
};

// Runs a task, or joins the parts that begin with it. False when there is no memory for the scratch.
static bool decode(const QxDecode& a, const DecodeTask& task, bool join) {
    const FlushDenormals flush;
    bool ok = true;
    with_type(a.dtype, [&](auto type) {
        with_cached(a.cache_type, [&](auto cached) {
            DecodeRun<decltype(type), decltype(cached)> run(a, task);
            ok = join ? run.join() : run.run();
        });
    });
    return ok;
}

}  // namespace QX_NS
}  // namespace qx
