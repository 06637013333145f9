// y = act(x W^T + bias) + residual in eight bits: each row of x becomes bytes with a scale and a zero of its own (or with
// those given for all), products are summed in integers, and sums become floats while they are still near.
//
// A block of rows of x is turned into bytes that stay in the second-level cache; the weights stream past it panel by
// panel, as in linear.h.
#pragma once
#include "linear_finish.h"
#include "linear_tile.h"
#include "quant_bytes.h"
#include "scratch.h"

namespace qx {
namespace QX_NS {

constexpr int64_t byte_chunk_words = 512;
constexpr int64_t most_byte_rows = 16 * tile_rows;

// What is brought near while a tile is multiplied, a line or so in each step: arithmetic takes long enough to hide it.
struct Near {
    const char* weights;  // needed next: `lines` lines
    int64_t lines;
    const char *out[2 * tile_rows], *residual[2 * tile_rows];  // lines of the result and of what is added to it
    int64_t count;
};
constexpr Near nothing_near = {};

// c [M, N * width] (+)= a * b with rows of a `lda` words apart.
template <int M, int N>
static void byte_tile(const uint32_t* a, int64_t lda, const uint32_t* b, int64_t steps, float* c, int64_t ldc, bool add, const Near& ahead) {
    V sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[m][n] = add ? load(c + m * ldc + n * width) : set1(0.0f);
    const auto step = [&](int64_t k) __attribute__((always_inline)) {
        V bs[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) bs[n] = ByteStep::load_b(b + (k * N + n) * width);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sums[m][n] = ByteStep::step(sums[m][n], bs[n], a[m * lda + k]);
    };
    const char* next = ahead.weights;
    const int64_t first = ahead.count < steps ? ahead.count : steps, then = ahead.lines < steps ? ahead.lines : steps;
    int64_t k = 0;
    for (; k < first; ++k) {
        step(k);
        __builtin_prefetch(next + k * 64, 0, 2);
        __builtin_prefetch(ahead.out[k], 1, 3);
        __builtin_prefetch(ahead.residual[k], 0, 3);
    }
    for (; k < then; ++k) {
        step(k);
        __builtin_prefetch(next + k * 64, 0, 2);
    }
    for (; k < steps; ++k) step(k);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) store(c + m * ldc + n * width, sums[m][n]);
}

using ByteTile = void (*)(const uint32_t*, int64_t, const uint32_t*, int64_t, float*, int64_t, bool, const Near&);

template <int N>
static ByteTile byte_tile_of(int rows) {
    if constexpr (tile_rows == 8) {
        switch (rows) {
            case 5: return byte_tile<5, N>;
            case 6: return byte_tile<6, N>;
            case 7: return byte_tile<7, N>;
            case 8: return byte_tile<8, N>;
        }
    }
    switch (rows) {
        case 1: return byte_tile<1, N>;
        case 2: return byte_tile<2, N>;
        case 3: return byte_tile<3, N>;
        default: return byte_tile<4, N>;
    }
}

static ByteTile byte_product(int rows, int vectors) {
    if constexpr (tile_vectors >= 3)
        if (vectors == 3) return byte_tile_of<3>(rows);
    return vectors == 2 ? byte_tile_of<2>(rows) : byte_tile_of<1>(rows);
}

// Packed: the words of all panels, then for each column the sum of its weights and its scale, filled up with zeros.
struct PackedBytes {
    int64_t words, columns;
    explicit PackedBytes(const QxQuantLinear& a) : words((a.k + 3) / 4), columns(round_up(a.n, width)) {}
    int64_t bytes() const { return columns * (words + 2) * 4; }
    template <class T>
    T* sums(T* packed) const { return packed + columns * words; }
    template <class T>
    T* scales(T* packed) const { return packed + columns * (words + 1); }
};

static int64_t quant_linear_bytes(const QxQuantLinear& a) { return PackedBytes(a).bytes(); }

static void quant_linear_pack(const QxQuantLinear& a, void* packed, int64_t first, int64_t last) {
    const Panels panels(a.n, tile_vectors);
    const PackedBytes lay(a);
    uint32_t* base = static_cast<uint32_t*>(packed);
    const int8_t* weight = static_cast<const int8_t*>(a.weight);
    const float* scale = static_cast<const float*>(a.weight_scale);
    for (int64_t p = first; p < last; ++p) {
        const int64_t columns = panels.vectors(int(p)) * width, column = int64_t(panels.first(int(p))) * width;
        int8_t* panel = reinterpret_cast<int8_t*>(base + column * lay.words);
        for (int64_t c = 0; c < columns; ++c) {
            const int64_t n = column + c;
            int32_t sum = 0;
            for (int64_t k = 0; k < lay.words * 4; ++k) {
                const int8_t w = n < a.n && k < a.k ? weight[n * a.k + k] : int8_t(0);
                sum += w;
                panel[((k / 4) * columns + c) * 4 + k % 4] = w;
            }
            const float s = n < a.n ? scale[n] : 0.0f;
            std::memcpy(lay.sums(base) + n, &sum, 4);
            std::memcpy(lay.scales(base) + n, &s, 4);
        }
    }
}

// A tile of the result from its sums; scales are those of its rows.
template <class D, bool adds, class Fn>
static inline void finish_bytes_as(const QxQuantLinear& a, const float* column_sums, const float* column_scales, const RowScale* scales, int64_t row, int rows, int64_t column, int64_t columns, const float* sums, int64_t ld, const Fn act) {
    using T = typename D::T;
    const T* bias = static_cast<const T*>(a.bias);
    const T* residual = adds ? static_cast<const T*>(a.residual) + row * a.residual_stride + column : nullptr;
    T* out = static_cast<T*>(a.out) + row * a.out_stride + column;
    const int64_t out_stride = a.out_stride, residual_stride = a.residual_stride;
    for (int64_t j = 0; j < columns; j += width) {
        const int there = int(columns - j < width ? columns - j : width);
        const V of = load(column_sums + column + j), scale = load(column_scales + column + j);
        const float* from = sums + j;
        if (there == width) {
            const V b = bias ? D::load(bias + column + j) : set1(0.0f);
            const T* add = residual + j;
            T* to = out + j;
            for (int r = 0; r < rows; ++r, from += ld, to += out_stride, add += residual_stride) {
                V v = act(fma(centred(load(from), of, scales[r].zero) * set1(scales[r].scale), scale, b));
                if constexpr (adds) v = v + D::load(add);
                D::store(to, v);
            }
        } else {
            const V b = bias ? D::load_part(bias + column + j, there) : set1(0.0f);
            for (int r = 0; r < rows; ++r, from += ld) {
                V v = act(fma(centred(load(from), of, scales[r].zero) * set1(scales[r].scale), scale, b));
                if constexpr (adds) v = v + D::load_part(residual + r * residual_stride + j, there);
                D::store_part(out + r * out_stride + j, v, there);
            }
        }
    }
}

template <class D, class Fn>
static void finish_bytes_by(const QxQuantLinear& a, const float* column_sums, const float* column_scales, const RowScale* scales, int64_t row, int rows, int64_t column, int64_t columns, const float* sums, int64_t ld, const Fn& act) {
    if (a.residual) finish_bytes_as<D, true>(a, column_sums, column_scales, scales, row, rows, column, columns, sums, ld, act);
    else finish_bytes_as<D, false>(a, column_sums, column_scales, scales, row, rows, column, columns, sums, ld, act);
}

// Rows [begin, end) by panels [first, last). False when there is no memory for the scratch.
template <class D, class Fn>
static bool multiply_bytes(const QxQuantLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last, const Fn act) {
    using Word = uint32_t;
    const Panels panels(a.n, tile_vectors);
    const PackedBytes lay(a);
    const int64_t words = lay.words, chunks = (words + byte_chunk_words - 1) / byte_chunk_words;
    // Rows lie an odd number of cache lines apart, so that those of a tile do not fall into one set of the cache.
    const int64_t stride = (round_up(words * 4, 64) | 64) / 4;
    int64_t most = near_x_bytes / (stride * 4) / tile_rows * tile_rows;
    most = most < tile_rows ? tile_rows : most > most_byte_rows ? most_byte_rows : most;
    constexpr int64_t ldc = tile_vectors * width;
    const auto carve = [&](void* base, Word*& x, float*& sums, RowScale*& scales) {
        Carver carver(base);
        x = carver.take<Word>(size_t(most * stride + 4 * width));
        sums = carver.take<float>(size_t(most * ldc));
        scales = carver.take<RowScale>(size_t(most));
        return carver.used();
    };
    Word* x = nullptr;
    float* sums = nullptr;
    RowScale* scales = nullptr;
    void* base = scratch(0, carve(nullptr, x, sums, scales));
    if (!base) return false;
    carve(base, x, sums, scales);
    const Word* weight = static_cast<const Word*>(a.weight);
    const float* factor = static_cast<const float*>(a.x_factor);
    const float* column_sums = reinterpret_cast<const float*>(lay.sums(weight));
    const float* column_scales = reinterpret_cast<const float*>(lay.scales(weight));
    const Word* stop = weight + int64_t(last < panels.count ? panels.first(int(last)) : panels.first(panels.count)) * width * words;
    const int64_t blocks = (end - begin + most - 1) / most;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t top = part_of(begin, end, block, blocks), rows = part_of(begin, end, block + 1, blocks) - top;
        const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
        const auto* source = static_cast<const typename D::T*>(a.x) + top * a.x_stride;
        for (int64_t r = 0; r < rows; ++r) {
            const auto* from = source + r * a.x_stride;
            uint8_t* to = reinterpret_cast<uint8_t*>(x + r * stride);
            scales[r] = factor ? quantise_row(a, ScaledRow<D>{from, factor}, to) : quantise_row(a, PlainRow<D>{from}, to);
        }
        for (int64_t p = first; p < last; ++p) {
            const int vectors = panels.vectors(int(p));
            const int64_t column = int64_t(panels.first(int(p))) * width;
            const int64_t columns = a.n - column < vectors * width ? a.n - column : vectors * width;
            const Word* panel = weight + column * words;
            for (int64_t c = 0; c < chunks; ++c) {
                const int64_t k = part_of(0, words, c, chunks), steps = part_of(0, words, c + 1, chunks) - k;
                const Word* b = panel + k * vectors * width;
                // What follows in memory is used next, but for the last chunk: there the next block starts over.
                const Word* next = b + steps * vectors * width;
                if (next >= stop) next = weight + int64_t(panels.first(int(first))) * width * words;
                const int64_t lines = (steps * vectors * width * 4 / 64 + tiles - 1) / tiles;
                for (int64_t t = 0; t < tiles; ++t) {
                    const int64_t r = part_of(0, rows, t, tiles), m = part_of(0, rows, t + 1, tiles) - r;
                    float* to = sums + r * ldc;
                    Near ahead;
                    ahead.weights = reinterpret_cast<const char*>(next) + t * lines * 64;
                    ahead.lines = lines;
                    ahead.count = 0;
                    if (c + 1 == chunks) {
                        using T = typename D::T;
                        const char* o = reinterpret_cast<const char*>(static_cast<T*>(a.out) + (top + r) * a.out_stride + column);
                        const char* q = a.residual ? reinterpret_cast<const char*>(static_cast<const T*>(a.residual) + (top + r) * a.residual_stride + column) : o;
                        const int64_t os = a.out_stride * int64_t(sizeof(T)), qs = a.residual ? a.residual_stride * int64_t(sizeof(T)) : os, last = columns * int64_t(sizeof(T)) - 1;
                        for (int64_t i = 0; i < m; ++i, o += os, q += qs) {
                            ahead.out[2 * i] = o;
                            ahead.out[2 * i + 1] = o + last;
                            ahead.residual[2 * i] = q;
                            ahead.residual[2 * i + 1] = q + last;
                        }
                        ahead.count = 2 * m;
                    }
                    byte_product(int(m), vectors)(x + r * stride + k, stride, b, steps, to, ldc, c > 0, ahead);
                    if (c + 1 == chunks) finish_bytes_by<D>(a, column_sums, column_scales, scales + r, top + r, int(m), column, columns, to, ldc, act);
                }
            }
        }
    }
    return true;
}

template <class D>
static bool quant_linear_as(const QxQuantLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
    switch (a.activation) {
        case QX_GELU_ERF: return multiply_bytes<D>(a, begin, end, first, last, GeluErf());
        case QX_GELU_TANH: return multiply_bytes<D>(a, begin, end, first, last, GeluTanh());
        case QX_SILU: return multiply_bytes<D>(a, begin, end, first, last, [](V x) { return silu(x); });
        case QX_RELU: return multiply_bytes<D>(a, begin, end, first, last, [](V x) { return max(set1(0.0f), x); });
        default: return multiply_bytes<D>(a, begin, end, first, last, [](V x) { return x; });
    }
}

static bool quant_linear_part(const QxQuantLinear& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
    bool fine = false;
    with_type(a.dtype, [&](auto d) { fine = quant_linear_as<decltype(d)>(a, begin, end, first, last); });
    return fine;
}

static constexpr QuantLinearKernels quant_linear_kernels = {width, tile_vectors, quant_linear_bytes, quant_linear_pack, quant_linear_part};

}  // namespace QX_NS
}  // namespace qx
