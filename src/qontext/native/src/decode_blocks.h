// Attention over a cache by products of pairs: block by block of tokens, first all keys of a block, then its values.
//
// In a cache of pages the key heads of a page lie one after the other, so a task takes several heads and reads a unit of
// tokens (a page, where that fills tiles) head by head: the longer the runs of memory, the faster they are read.
#pragma once
#include "decode_add.h"
#include "decode_next.h"
#include "decode_rows.h"
#include "decode_score.h"

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
            in_order(work[h].head.sums, padded, wide, size);
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
        const float by = factor(w.head.number);
        for (int64_t j = begin, end = unit_end(here, begin); j < end; j += tile)
            for (int64_t r = 0; r < padded; r += row_tile) {
                const auto four = [&](auto steps, auto&& fetch) {
                    score_keys<decltype(steps)::value, C>(w.queries + r * size, here.keys + j, offset, size, by, w.scores + r * most_keys + j, most_keys, fetch);
                };
                const auto sized = [&](auto&& fetch) {
                    if (size == 4 * pair_step) four(std::integral_constant<int, 4>{}, fetch);
                    else if (size == 2 * pair_step) four(std::integral_constant<int, 2>{}, fetch);
                    else four(std::integral_constant<int, 0>{}, fetch);
                };
                if (r == 0) sized([this] { ahead.row(); });
                else sized([] {});
            }
    }

    void add(const Work& w, const Places& here, int64_t begin, int64_t offset) {
        for (int64_t j = begin, end = unit_end(here, begin); j < end; j += values_at_once) {
            const int64_t count = end - j < values_at_once ? end - j : values_at_once;
            for (int64_t c = 0; c < size; c += most_steps * pair_step)
                for (int64_t r = 0; r < padded; r += 2) {
                    const auto two = [&](auto steps, auto&& fetch) {
                        add_values<decltype(steps)::value, C>(w.weights + r * most_keys + j, most_keys, here.keys + j, offset + c, count, w.head.sums + r * wide + c, wide, fetch);
                    };
                    const auto sized = [&](auto&& fetch) {
                        switch ((size - c) / pair_step) {
                            case 1: return two(std::integral_constant<int, 1>{}, fetch);
                            case 2: return two(std::integral_constant<int, 2>{}, fetch);
                            case 3: return two(std::integral_constant<int, 3>{}, fetch);
                            default: return two(std::integral_constant<int, 4>{}, fetch);
                        }
                    };
                    if (c == 0 && r < row_tile) sized([this] { ahead.row(); });
                    else sized([] {});
                }
        }
    }
};

#endif

}  // namespace QX_NS
}  // namespace qx
