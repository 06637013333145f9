// Attention in eight bits: queries, keys, values and probabilities are bytes, products are summed in integers.
//
// A task packs all keys and values that its rows may see. For a few rows at a time it works out all scores, then their
// exponentials, then their bytes: these are counted from a row's largest score or from the sum of its exponentials, which
// must be known first. Queries are moved up by 128 to be unsigned; the sums of the keys' bytes take that out again.
#pragma once
#include "attention_rows.h"
#include "denormals.h"
#include "quant_linear.h"
#include "scratch.h"

namespace qx {
namespace QX_NS {

// Bytes in memory: a float source stands for rows that become bytes here, this one for rows that are bytes already.
struct Stored {
    using T = int8_t;
};

// x about byte * scale, with `inverse` its reciprocal; the largest magnitude becomes 127.
struct ByteScale {
    float scale, inverse;
};

static inline ByteScale scale_of(float largest, float not_finite) {
    const bool empty = !(largest >= 1e-30f);
    return {(empty ? 1.0f : largest / 127.0f) + not_finite, empty ? 0.0f : 127.0f / largest};
}

// The largest magnitude of a row, and in `bad` a NaN where it holds a NaN or an infinity.
template <class D>
static inline float magnitude(const typename D::T* row, int64_t size, float& bad) {
    V most = set1(0.0f), lost = set1(0.0f);
    const auto take = [&](V v) {
        most = max(abs(v), most);
        lost = fma(v, set1(0.0f), lost);
    };
    int64_t k = 0;
    for (; k + width <= size; k += width) take(D::load(row + k));
    if (k < size) take(D::load_part(row + k, int(size - k)));
    bad += sum(lost);
    return largest(most);
}

// The bytes of a row, moved up by 128; what lies behind it up to the next multiple of 4 * width becomes 128.
template <class D>
static inline void raised_bytes(const typename D::T* row, int64_t size, float inverse, uint8_t* to) {
    if constexpr (std::is_same_v<D, Stored>) {
        for (int64_t k = 0; k < size; ++k) to[k] = uint8_t(row[k]) ^ 0x80;
        for (int64_t k = size; k < round_up(size, 4 * width); ++k) to[k] = 0x80;
    } else {
        const V factor = set1(inverse), most = set1(127.0f), least = set1(-127.0f);
        for (int64_t k = 0; k < size; k += 4 * width) {
            V values[4];
            for (int i = 0; i < 4; ++i) {
                const int64_t at = k + i * width, left = size - at;
                const V v = left >= width ? D::load(row + at) : left > 0 ? D::load_part(row + at, int(left)) : set1(0.0f);
                values[i] = min(max(v * factor, least), most);
            }
            store_bytes(to + k, values, 128);
        }
    }
}

// Moves bytes down by 128 again and adds them up.
static inline int32_t lowered(uint8_t* __restrict at, int64_t count) {
    int32_t sum = 0;
    for (int64_t k = 0; k < count; ++k) {
        at[k] ^= 0x80;
        sum += int8_t(at[k]);
    }
    return sum;
}

static inline V rounded(V v) {
    const V magic = set1(12582912.0f);  // 1.5 * 2^23: adding it leaves no digits behind the point
    return (v + magic) - magic;
}

// Four rows of raised bytes as words of signed ones, a word holding the same column of each.
static inline void four_rows(const uint8_t* __restrict from, int64_t apart, int64_t columns, uint32_t* __restrict to) {
    for (int64_t c = 0; c < columns; ++c)
        to[c] = (uint32_t(from[c]) | uint32_t(from[apart + c]) << 8 | uint32_t(from[2 * apart + c]) << 16 | uint32_t(from[3 * apart + c]) << 24) ^ 0x80808080u;
}

template <class D>
class ByteAttention {
    using T = typename D::T;
    static constexpr bool stored = std::is_same_v<D, Stored>;

    const QxQuantAttention& call;
    const QxAttention& a;
    const AttentionTask& task;
    const int64_t group;
    const Sequence s;
    const bool plain;

    KeyRange keys;
    int64_t count, words, key_words, score_ld, query_ld, byte_ld, context_ld;
    uint32_t *packed_keys, *packed_values, *queries, *bytes;
    float *key_sums, *key_scales, *scores, *contexts, *spare;
    uint8_t *spare_mask, *line;
    float value_scale = 1.0f;

public:
    ByteAttention(const QxQuantAttention& c, const AttentionPlan& plan, const AttentionTask& t)
        : call(c), a(c.attention), task(t), group(plan.group), s(sequence_at(a, t.batch)), plain(plain_scores(a)) {}

    bool run() {
        if (!lay_out()) return false;
        pack_keys();
        pack_values();
        for (int64_t row = task.begin; row < task.end; row += tile_rows)
            some_rows(row, int(task.end - row < tile_rows ? task.end - row : tile_rows));
        return true;
    }

private:
    bool lay_out() {
        const KeyRange first = key_range(a, s, task.begin / group), last = key_range(a, s, (task.end - 1) / group);
        keys = {first.begin, last.end > first.begin ? last.end : first.begin};
        if (a.empty_row == QX_UNIFORM) keys = {0, s.kv_len};  // rows without a key take the mean of all values
        count = keys.end - keys.begin;
        words = (a.head_size + 3) / 4;
        key_words = (count + 3) / 4;
        score_ld = round_up(count, 4 * width) + 16;  // off a power of two: rows must not share cache sets
        query_ld = round_up(a.head_size, 4 * width) / 4 + 16;
        byte_ld = round_up(count, 4 * width) / 4 + 16;
        context_ld = round_up(a.value_size, width);
        void* base = nullptr;
        for (int pass = 0; pass < 2; ++pass) {
            Carver carve(base);
            packed_keys = carve.take<uint32_t>(size_t(round_up(count, width) * words));
            packed_values = carve.take<uint32_t>(size_t(context_ld * key_words));
            queries = carve.take<uint32_t>(size_t(tile_rows * query_ld));
            bytes = carve.take<uint32_t>(size_t(tile_rows * byte_ld));
            key_sums = carve.take<float>(size_t(round_up(count, width)));
            key_scales = carve.take<float>(size_t(round_up(count, width)));
            scores = carve.take<float>(size_t(tile_rows * score_ld));
            contexts = carve.take<float>(size_t(tile_rows * context_ld));
            spare = carve.take<float>(size_t(count));
            spare_mask = carve.take<uint8_t>(size_t(count));
            line = carve.take<uint8_t>(size_t(4 * round_up(a.head_size > a.value_size ? a.head_size : a.value_size, 4 * width)));
            if (pass == 0 && !(base = scratch(0, carve.used()))) return false;
        }
        return true;
    }

    const T* key_at(int64_t key) const { return static_cast<const T*>(a.k) + s.batch * a.k_batch + (s.k_first + key) * a.k_token + task.kv_head * a.k_head; }
    const T* value_at(int64_t key) const { return static_cast<const T*>(a.v) + s.batch * a.v_batch + (s.k_first + key) * a.v_token + task.kv_head * a.v_head; }

    // Scale and inverse of a row: that of the call, or its own.
    ByteScale scale_of_row(const T* row, int64_t size, double given) const {
        if constexpr (stored) {
            return {float(given), 1.0f};
        } else {
            float bad = 0.0f;
            const float most = magnitude<D>(row, size, bad);
            return given > 0 ? ByteScale{float(given) + bad, 1.0f / float(given)} : scale_of(most, bad);
        }
    }

    void pack_keys() {
        const Panels panels(count, tile_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first = int64_t(panels.first(p)) * width, columns = int64_t(panels.vectors(p)) * width;
            uint32_t* panel = packed_keys + first * words;
            for (int64_t c = 0; c < columns; ++c) {
                int32_t sum = 0;
                float scale = 0.0f;
                if (first + c < count) {
                    const T* row = key_at(keys.begin + first + c);
                    const ByteScale by = scale_of_row(row, a.head_size, call.k_scale);
                    scale = by.scale;
                    raised_bytes<D>(row, a.head_size, by.inverse, line);
                    sum = lowered(line, words * 4);
                } else {
                    std::memset(line, 0, size_t(words * 4));
                }
                for (int64_t k = 0; k < words; ++k) std::memcpy(panel + k * columns + c, line + 4 * k, 4);
                std::memcpy(key_sums + first + c, &sum, 4);
                key_scales[first + c] = scale;
            }
        }
    }

    void pack_values() {
        ByteScale by{float(call.v_scale), 1.0f};
        if constexpr (!stored) {
            float most = 0.0f, bad = 0.0f;
            const int64_t counted = s.valid > 0 ? s.valid : s.kv_len;
            for (int64_t key = 0; key < counted; ++key) {
                const float m = magnitude<D>(value_at(key), a.value_size, bad);
                most = m > most ? m : most;
            }
            by = call.v_scale > 0 ? ByteScale{float(call.v_scale) + bad, 1.0f / float(call.v_scale)} : scale_of(most, bad);
        }
        value_scale = by.scale;
        const Panels panels(a.value_size, tile_vectors);
        const int64_t apart = round_up(a.value_size, 4 * width);
        for (int64_t j = 0; j < key_words; ++j) {
            for (int64_t i = 0; i < 4; ++i) {
                uint8_t* to = line + i * apart;
                if (4 * j + i < count) raised_bytes<D>(value_at(keys.begin + 4 * j + i), a.value_size, by.inverse, to);
                else std::memset(to, 0x80, size_t(apart));
            }
            for (int p = 0; p < panels.count; ++p) {
                const int64_t first = int64_t(panels.first(p)) * width, columns = int64_t(panels.vectors(p)) * width;
                uint32_t* to = packed_values + first * key_words + j * columns;
                four_rows(line + first, apart, columns, to);
            }
        }
    }

    void some_rows(int64_t row, int rows) {
        float steps[tile_rows];
        float query_scales[tile_rows];
        for (int r = 0; r < rows; ++r) {
            const int64_t query = (row + r) / group, head = task.kv_head * group + (row + r) % group;
            const T* from = static_cast<const T*>(a.q) + s.batch * a.q_batch + (s.q_first + query) * a.q_token + head * a.q_head;
            const ByteScale by = scale_of_row(from, a.head_size, call.q_scale);
            query_scales[r] = by.scale;
            raised_bytes<D>(from, a.head_size, by.inverse, reinterpret_cast<uint8_t*>(queries + r * query_ld));
        }
        const Panels panels(count, tile_vectors);
        for (int p = 0; p < panels.count; ++p) {
            const int64_t first = int64_t(panels.first(p)) * width;
            byte_product(rows, panels.vectors(p))(queries, query_ld, packed_keys + first * words, words, scores + first, score_ld, false, nothing_near);
        }
        for (int r = 0; r < rows; ++r) steps[r] = soften(row + r, query_scales[r], scores + r * score_ld, reinterpret_cast<uint8_t*>(bytes + r * byte_ld));
        const Panels across(a.value_size, tile_vectors);
        for (int p = 0; p < across.count; ++p) {
            const int64_t first = int64_t(across.first(p)) * width;
            byte_product(rows, across.vectors(p))(bytes, byte_ld, packed_values + first * key_words, key_words, contexts + first, context_ld, false, nothing_near);
        }
        for (int r = 0; r < rows; ++r) finish(row + r, steps[r] * value_scale, contexts + r * context_ld);
    }

    // The bytes of a row's probabilities from its sums; what one of them stands for.
    float soften(int64_t row, float query_scale, float* line_of, uint8_t* to) {
        const int64_t query = row / group, head = task.kv_head * group + row % group;
        const KeyRange range = key_range(a, s, query);
        const int64_t low = range.begin - keys.begin, high = range.end - keys.begin, whole = round_up(count, 4 * width);
        for (int64_t j = 0; j < count; j += width) {
            const V v = centred(load(line_of + j), load(key_sums + j), 128);
            store(line_of + j, v * (load(key_scales + j) * set1(query_scale)));
        }
        fill(line_of, 0, low < count ? low : count, -INFINITY);
        fill(line_of, high > 0 ? high : 0, whole, -INFINITY);
        float factor = log2_e * (plain ? float(a.scale) : 1.0f);
        if (!plain && low < high) {
            const int64_t n = high - low;
            const float* bias = a.bias ? bias_row(a, s.batch, head, query, range.begin, n, spare) : nullptr;
            const uint8_t* mask = a.mask ? mask_row(a, s.batch, head, query, range.begin, n, spare_mask) : nullptr;
            transform_row(line_of + low, n, float(a.scale), float(a.softcap), bias, mask);
        }
        float top = whole ? largest(largest_lanes(line_of, whole)) : -INFINITY;
        if (!(top > -INFINITY)) {
            if (!any_nan(line_of, whole)) {
                if (a.empty_row != QX_UNIFORM || count == 0) {
                    std::memset(to, 0, size_t(whole));
                    return 0.0f;
                }
                fill(line_of, 0, count, 0.0f);
                factor = 1.0f;
            }
            top = 0.0f;  // or a NaN among keys that are all hidden: it shows in the result
        }
        return call.dq_probs > 0 ? by_step(line_of, whole, top, factor, to) : by_largest(line_of, whole, top, factor, to);
    }

    // Bytes count from the row's largest probability, which is 127, and add up to 1.
    float by_largest(const float* from, int64_t whole, float top, float factor, uint8_t* to) {
        V total = set1(0.0f);
        for (int64_t j = 0; j < whole; j += 4 * width) {
            V values[4];
            for (int i = 0; i < 4; ++i) {
                values[i] = rounded(exp2((load(from + j + i * width) - set1(top)) * set1(factor)) * set1(127.0f));
                total = total + values[i];
            }
            store_bytes(to + j, values, 0);
        }
        return 1.0f / sum(total);
    }

    // Bytes are normalised probabilities in steps of dq_probs.
    float by_step(float* from, int64_t whole, float top, float factor, uint8_t* to) {
        V total = set1(0.0f);
        for (int64_t j = 0; j < whole; j += width) {
            const V e = exp2((load(from + j) - set1(top)) * set1(factor));
            total = total + e;
            store(from + j, e);
        }
        const float sum_of = sum(total), step = float(call.dq_probs);
        const V most = set1(127.0f), inverse = set1(1.0f / (sum_of * step));
        for (int64_t j = 0; j < whole; j += 4 * width) {
            V values[4];
            for (int i = 0; i < 4; ++i) values[i] = min(load(from + j + i * width) * inverse, most);
            store_bytes(to + j, values, 0);
        }
        return step + sum_of * 0.0f;  // a NaN stays one
    }

    void finish(int64_t row, float factor, float* sums) {
        const int64_t query = row / group, head = task.kv_head * group + row % group;
        const int64_t at = s.batch * a.out_batch + (s.q_first + query) * a.out_token + head * a.out_head;
        const V none = set1(0.0f), by = set1(factor);
        for (int64_t c = 0; c < context_ld; c += width) store(sums + c, centred(load(sums + c), none, 0) * by);
        if (call.out_dtype == QX_I8) {
            int8_t* out = static_cast<int8_t*>(a.out) + at;
            const float inverse = 1.0f / float(call.context_scale);
            for (int64_t c = 0; c < a.value_size; ++c) {
                const float v = sums[c] * inverse;
                out[c] = int8_t(std::lrintf(v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v));
            }
            return;
        }
        with_type(call.out_dtype, [&](auto type) {
            using Out = decltype(type);
            auto* out = static_cast<typename Out::T*>(a.out) + at;
            int64_t c = 0;
            for (; c + width <= a.value_size; c += width) Out::store(out + c, load(sums + c));
            if (c < a.value_size) Out::store_part(out + c, load(sums + c), int(a.value_size - c));
        });
    }
};

// False when there is no memory for the scratch.
static bool quant_attention(const QxQuantAttention& call, const AttentionPlan& plan, const AttentionTask& task) {
    const FlushDenormals flush;
    if (call.attention.dtype == QX_I8) return ByteAttention<Stored>(call, plan, task).run();
    bool fine = false;
    with_type(call.attention.dtype, [&](auto type) { fine = ByteAttention<decltype(type)>(call, plan, task).run(); });
    return fine;
}

}  // namespace QX_NS
}  // namespace qx
