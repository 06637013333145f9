// Attention over a cache by products of pairs: block by block of tokens, first all keys of a block, then its values.
//
// In a cache of pages the key heads of a page lie one after the other, so a task takes several heads and reads a unit of
// tokens (a page, where that fills tiles) head by head: the longer the runs of memory, the faster they are read.
#pragma once
#include "decode_add.h"
#include "decode_next.h"
#include "decode_rows.h"
#include "decode_score.h"
#include "decode_widen.h"

namespace qx {
namespace QX_NS {

#if defined(__AVX512BF16__)

template <class C>
class DecodeBlocks : public DecodeRows<BF16> {
    using Cached = typename C::T;
    static constexpr int64_t most_keys = 128, ahead_bytes = 8192, tile = 16;
    using Places = KeyPlaces<Cached, most_keys>;

    struct Work {
        Head head;
        uint16_t *queries, *weights;
        float* scores;
    };
    const int64_t unit, block;
    Work work[most_decode_heads];
    uint16_t* room;  // where what has eight bits is widened to
    Places places[2];
    NextRows<Cached, Places> ahead;

    static int64_t unit_of(const QxDecode& a) {
        if (!a.table) return most_keys;
        return a.page % tile != 0 ? tile : a.page < most_keys ? a.page : most_keys;
    }

public:
    DecodeBlocks(const QxDecode& args, const DecodeTask& t)
        : DecodeRows(args, t), unit(unit_of(args)), block(most_keys / unit * unit), ahead(unit, t.heads, args.head, args.part, args.head_size) {}

    bool run() {
        void* base = nullptr;
        for (int pass = 0; pass < 2; ++pass) {
            Carver carve(base);
            room = carve.take<uint16_t>(holds_pairs<C> ? 0 : size_t(values_at_once<C> * size));
            for (int64_t h = 0; h < task.heads; ++h) {
                Work& w = work[h];
                take(carve, w.head);
                w.head.number = task.kv_head + h;
                w.queries = carve.take<uint16_t>(size_t(padded * size));
                w.weights = carve.take<uint16_t>(size_t(padded * most_keys));
                w.scores = carve.take<float>(size_t(padded * most_keys));
            }
            if (pass == 0 && !(base = scratch(0, carve.used()))) return false;
        }
        for (int64_t h = 0; h < task.heads; ++h) {
            begin(work[h].head);
            std::memset(work[h].queries, 0, size_t(padded * size) * 2);
            for (int64_t r = 0; r < rows; ++r) std::memcpy(work[h].queries + r * size, query(work[h].head.number, r), size_t(size) * 2);
            std::memset(work[h].weights, 0, size_t(padded * most_keys) * 2);
        }
        attend();
        for (int64_t h = 0; h < task.heads; ++h) {
            if (interleaves_values<C>()) in_order(work[h].head.sums, padded, wide, size);
            end(work[h].head);
        }
        return true;
    }

private:
    void attend() {
        int at = 0;
        places[at].find(a, task, seen, task.begin, block);
        for (int64_t n = task.begin; n < task.end; n += block, at ^= 1) {
            const bool more = n + block < task.end;
            if (more) places[at ^ 1].find(a, task, seen, n + block, block);
            const Places& here = places[at];
            ahead.enter(&here, more ? &places[at ^ 1] : nullptr);
            if (n == task.begin)
                for (int64_t b = 0; b < ahead_bytes; b += size * int64_t(sizeof(Cached))) ahead.row();
            for (int64_t u = 0; u < here.count; u += unit)
                for (int64_t h = 0; h < task.heads; ++h) score(work[h], here, u, h * a.head);
            for (int64_t h = 0; h < task.heads; ++h) {
                const Work& w = work[h];
                soften(w.head, w.scores, most_keys, here.positions, here.count, [&](int64_t r, int64_t j, V p, V next) { store_bf16_two(w.weights + r * most_keys + j, p, next); });
            }
            for (int64_t u = 0; u < here.count; u += unit)
                for (int64_t h = 0; h < task.heads; ++h) add(work[h], here, u, h * a.head + a.part);
        }
    }

    int64_t unit_end(const Places& here, int64_t begin) const { return begin + unit < here.count ? begin + unit : here.count; }

    // Keys of a unit, which lie `offset` behind those of the task's first head.
    void score(const Work& w, const Places& here, int64_t begin, int64_t offset) {
        const auto next = [this] { ahead.row(); };
        for (int64_t j = begin, end = unit_end(here, begin); j < end; j += tile) {
            if constexpr (holds_pairs<C>) {
                score_tile(w, KeysInPlace{here.keys + j, offset}, j, next);
            } else {
                widen_keys<C>(here.keys + j, offset, tile, size, room, next);
                score_tile(w, KeysInLine{room, size}, j, [] {});
            }
        }
    }

    // Sixteen keys and all rows of queries; `next` is called for the first four.
    template <class Keys, class Fn>
    void score_tile(const Work& w, const Keys& keys, int64_t j, const Fn& next) {
        const auto rows_from = [&](int64_t r, const auto& fetch) {
            const auto four = [&](auto steps) { score_keys<decltype(steps)::value>(w.queries + r * size, keys, size, factor(w.head.number), w.scores + r * most_keys + j, most_keys, fetch); };
            if (size == 4 * pair_step) four(std::integral_constant<int, 4>{});
            else if (size == 2 * pair_step) four(std::integral_constant<int, 2>{});
            else four(std::integral_constant<int, 0>{});
        };
        rows_from(0, next);
        for (int64_t r = row_tile; r < padded; r += row_tile) rows_from(r, [] {});
    }

    void add(const Work& w, const Places& here, int64_t begin, int64_t offset) {
        const auto next = [this] { ahead.row(); };
        for (int64_t j = begin, end = unit_end(here, begin); j < end; j += values_at_once<C>) {
            const int64_t count = end - j < values_at_once<C> ? end - j : values_at_once<C>;
            if constexpr (!holds_pairs<C>) widen_values<C>(here.keys + j, offset, count, size, room, next);
            for (int64_t c = 0; c < size; c += most_steps * pair_step) {
                if constexpr (holds_pairs<C>) add_columns(w, ValuesInPlace{here.keys + j, offset + c}, j, count, c, next);
                else add_columns(w, ValuesAsPairs{room + 2 * c, 2 * size}, j, count, c, [] {});
            }
        }
    }

    // Up to 128 columns and all rows of queries; `next` is called for the first four rows of the first columns.
    template <class Values, class Fn>
    void add_columns(const Work& w, const Values& values, int64_t j, int64_t count, int64_t c, const Fn& next) {
        const auto rows_from = [&](int64_t r, const auto& fetch) {
            const auto two = [&](auto steps) { add_values<decltype(steps)::value>(w.weights + r * most_keys + j, most_keys, values, count, w.head.sums + r * wide + c, wide, fetch); };
            switch ((size - c) / pair_step) {
                case 1: return two(std::integral_constant<int, 1>{});
                case 2: return two(std::integral_constant<int, 2>{});
                case 3: return two(std::integral_constant<int, 3>{});
                default: return two(std::integral_constant<int, 4>{});
            }
        };
        int64_t r = 0;
        if (c == 0)
            for (; r < row_tile; r += 2) rows_from(r, next);
        for (; r < padded; r += 2) rows_from(r, [] {});
    }
};

#endif

}  // namespace QX_NS
}  // namespace qx
