// Attention over a cache of any type, widened to floats as it is read: tiles of keys that fit a level-1 cache, the next
// tile brought near meanwhile. The rows of queries are worked on four at a time, so that a key or value is widened once
// for all of them.
#pragma once
#include "decode_places.h"
#include "decode_rows.h"

namespace qx {
namespace QX_NS {

template <class D, class C>
class DecodeFloats : public DecodeRows<D> {
    using Rows = DecodeRows<D>;
    using typename Rows::Head;
    using Rows::a, Rows::task, Rows::seen, Rows::rows, Rows::padded, Rows::size, Rows::wide, Rows::row_tile;
    using Cached = typename C::T;
    static constexpr int64_t tile = 32;
    static constexpr int key_tile = width / row_tile, column_tile = 4;
    static_assert(width % row_tile == 0 && tile % (2 * width) == 0, "tiles fill vectors");
    using Places = KeyPlaces<Cached, tile>;

    float *queries, *scores;
    Places places[2];

public:
    DecodeFloats(const QxDecode& args, const DecodeTask& t) : Rows(args, t) {}

    bool run() {
        Head head{};
        void* base = nullptr;
        for (int pass = 0; pass < 2; ++pass) {
            Carver carve(base);
            Rows::take(carve, head);
            queries = carve.take<float>(size_t(padded * wide));
            scores = carve.take<float>(size_t(padded * tile));
            if (pass == 0 && !(base = scratch(0, carve.used()))) return false;
        }
        for (int64_t h = 0; h < task.heads; ++h) {
            head.number = task.kv_head + h;
            attend(head, h * a.head);
        }
        return true;
    }

private:
    // Keys of the head lie `offset` behind those of the task's first.
    void attend(const Head& head, int64_t offset) {
        Rows::begin(head);
        take_queries(head.number);
        std::memset(scores, 0, size_t(padded * tile) * 4);
        int at = 0;
        places[at].find(a, task, seen, task.begin);
        for (int64_t n = task.begin; n < task.end; n += tile, at ^= 1) {
            const Places* next = n + tile < task.end ? &places[at ^ 1] : nullptr;
            if (next) places[at ^ 1].find(a, task, seen, n + tile);
            const Places& here = places[at];
            score(here, next, offset);
            Rows::soften(head, scores, tile, here.positions, here.count, [&](int64_t r, int64_t j, V p, V more) {
                store(scores + r * tile + j, p);
                store(scores + r * tile + j + width, more);
            });
            for (int64_t r = rows; r < padded; ++r)
                for (int64_t j = 0; j < tile; ++j) scores[r * tile + j] = 0.0f;
            add_values(head, here, next, offset + a.part);
        }
        Rows::end(head);
    }

    // Queries as floats, times the factor of the scores.
    void take_queries(int64_t head) {
        const V scale = set1(Rows::factor(head));
        std::memset(queries, 0, size_t(padded * wide) * 4);
        for (int64_t r = 0; r < rows; ++r) {
            float* to = queries + r * wide;
            const auto* from = Rows::query(head, r);
            int64_t d = 0;
            for (; d + width <= size; d += width) store(to + d, D::load(from + d) * scale);
            if (const int rest = int(size - d)) store(to + d, D::load_part(from + d, rest) * scale);
        }
    }

    // scores = Q K^T
    void score(const Places& here, const Places* next, int64_t offset) {
        const int64_t even = size - size % width;
        const int rest = int(size - even);
        for (int64_t j = 0; j < here.count; j += key_tile) {
            const Cached* k[key_tile];
            for (int i = 0; i < key_tile; ++i) {
                k[i] = here.keys[j + i] + offset;
                if (next && j + i < next->count) bring_near(next->keys[j + i] + offset, size);
            }
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
                    for (int i = 0; i < key_tile; ++i) scores[(r + row) * tile + j + i] = folded[row * key_tile + i];
            }
        }
    }

    void add_values(const Head& head, const Places& here, const Places* next, int64_t offset) {
        for (int64_t r = 0; r < padded; r += row_tile) {
            const Places* fetch = r == 0 ? next : nullptr;
            int64_t c = 0;
            for (; c + column_tile * width <= size; c += column_tile * width) columns<column_tile>(head, here, fetch, offset + c, r, c);
            for (; c + width <= size; c += width) columns<1>(head, here, fetch, offset + c, r, c);
            if (const int rest = int(size - c)) last_columns(head, here, offset + c, r, c, rest);
        }
    }

    template <int N>
    void columns(const Head& head, const Places& here, const Places* next, int64_t offset, int64_t r, int64_t c) {
        V sum[row_tile][N];
#pragma GCC unroll 16
        for (int row = 0; row < row_tile; ++row)
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) sum[row][n] = load(head.sums + (r + row) * wide + c + n * width);
        const float* p = scores + r * tile;
        for (int64_t j = 0; j < here.count; ++j) {
            const Cached* from = here.keys[j] + offset;
            if (next && j < next->count) bring_near(next->keys[j] + offset, N * width);
            V value[N];
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) value[n] = C::load(from + n * width);
#pragma GCC unroll 16
            for (int row = 0; row < row_tile; ++row) {
                const V weight = set1(p[row * tile + j]);
#pragma GCC unroll 16
                for (int n = 0; n < N; ++n) sum[row][n] = fma(weight, value[n], sum[row][n]);
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < row_tile; ++row)
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) store(head.sums + (r + row) * wide + c + n * width, sum[row][n]);
    }

    void last_columns(const Head& head, const Places& here, int64_t offset, int64_t r, int64_t c, int rest) {
#pragma GCC unroll 16
        for (int row = 0; row < row_tile; ++row) {
            float* to = head.sums + (r + row) * wide + c;
            V sum = load(to);
            for (int64_t j = 0; j < here.count; ++j) sum = fma(set1(scores[(r + row) * tile + j]), C::load_part(here.keys[j] + offset, rest), sum);
            store(to, sum);
        }
    }
};

}  // namespace QX_NS
}  // namespace qx
