// Attention arithmetic in bfloat16 on AMX tiles: 16 x 32 pairs' worth of products an instruction, fp32 sums.
#pragma once
#include "attention_bf16.h"

namespace qx {
namespace QX_NS {

// gcc's tile instructions do not say that they read memory: nothing may be moved across this.
static inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

// All eight tiles are 16 rows of 64 bytes. The layout is the processor's.
struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static const TileConfig tile_config = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// A tile of zeros, by a load with stride 0: unlike tilezero it does not wait for the products under way.
alignas(64) static const uint8_t zero_line[64] = {};
#define QX_TILE_CLEAR(TILE) _tile_loadd(TILE, zero_line, 0)

// Takes the tiles for the life of a task.
struct Tiles {
    Tiles() {
        settle_memory();
        _tile_loadconfig(&tile_config);
    }
    ~Tiles() { _tile_release(); }
};

struct TileCore : PairCore {
    static constexpr int64_t head_step = 32;
    static constexpr int64_t key_step = 32;
    static constexpr int64_t row_step = 16;
    static constexpr int64_t most_keys = 128;
    static constexpr int64_t most_rows = 32;

    static void pack_row(const T* from, int64_t size, Word* to) { pack_pair_row(from, size, head_step, to); }
    static void pack_keys(const T* k, int64_t token, int64_t keys, int64_t size, Word* to) { pack_pair_keys(k, token, keys, size, head_step, 1, to); }
    static void pack_values(const T* v, int64_t token, int64_t keys, int64_t size, Word* to) { pack_pair_values(v, token, keys, size, key_step, 1, to); }

    static void scores(int64_t rows, const Word* q, int64_t ldq, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo) {
        (void)keys;
        if (size > 32 && size <= 64) return scores_of_64(rows, q, ldq, packed, begin / 16, (end + 15) / 16, out, ldo);
        product(rows, q, ldq, packed, round_up(size, head_step) / 2, begin / 16, (end + 15) / 16, 0, round_up(size, head_step) / 2, out, ldo, false);
    }

    // Head size 33 to 64: 16 queries stay in tiles 4 and 5, sums rotate through tiles 0 to 3, and a sum is stored two
    // products after its last, so that no store waits.
    static void scores_of_64(int64_t rows, const Word* q, int64_t ldq, const Word* packed, int64_t first, int64_t last, float* out, int64_t ldo) {
        settle_memory();
        for (int64_t row = 0; row < rows; row += 16) {
            float* to = out + row * ldo;
            _tile_loadd(4, q + row * ldq, ldq * 4);
            _tile_loadd(5, q + row * ldq + 16, ldq * 4);
            int64_t n = first;
#define QX_SCORES(TILE, N)                                  \
    QX_TILE_CLEAR(TILE);                                    \
    _tile_loadd(6, packed + (N) * 512, 64);                 \
    _tile_dpbf16ps(TILE, 4, 6);                             \
    _tile_loadd(7, packed + (N) * 512 + 256, 64);           \
    _tile_dpbf16ps(TILE, 5, 7)
#define QX_STORE(TILE, N) _tile_stored(TILE, to + (N) * 16, ldo * 4)
            for (; n + 4 <= last; n += 4) {
                QX_SCORES(0, n);
                if (n > first) QX_STORE(2, n - 2);
                QX_SCORES(1, n + 1);
                if (n > first) QX_STORE(3, n - 1);
                QX_SCORES(2, n + 2);
                QX_STORE(0, n);
                QX_SCORES(3, n + 3);
                QX_STORE(1, n + 1);
            }
            if (n > first) {
                QX_STORE(2, n - 2);
                QX_STORE(3, n - 1);
            }
            for (; n < last; ++n) {
                QX_SCORES(0, n);
                QX_STORE(0, n);
            }
#undef QX_SCORES
#undef QX_STORE
        }
    }

    static void values(int64_t rows, const Word* probabilities, int64_t ldp, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo, bool add) {
        product(rows, probabilities, ldp, packed, round_up(keys, key_step) / 2, 0, (size + 15) / 16, begin / 2, end / 2, out, ldo, add);
    }

    // Columns [16 first, 16 last) of C (+)= A[:, from..to] * B[from..to, :] in words; B has panels of `height` words x 16.
    static void product(int64_t rows, const Word* a, int64_t lda, const Word* b, int64_t height, int64_t first, int64_t last, int64_t from, int64_t to, float* c, int64_t ldc, bool add) {
        settle_memory();
        int64_t row = 0;
        for (; row + 32 <= rows; row += 32) {
            int64_t n = first;
            for (; n + 2 <= last; n += 2) two_by_two(a + row * lda, lda, b + n * height * 16, height, from, to, c + row * ldc + n * 16, ldc, add);
            if (n < last) two_by_one(a + row * lda, lda, b + n * height * 16, from, to, c + row * ldc + n * 16, ldc, add);
        }
        if (row < rows) {
            int64_t n = first;
            for (; n + 2 <= last; n += 2) one_by_two(a + row * lda, lda, b + n * height * 16, height, from, to, c + row * ldc + n * 16, ldc, add);
            if (n < last) one_by_one(a + row * lda, lda, b + n * height * 16, from, to, c + row * ldc + n * 16, ldc, add);
        }
    }

    static void two_by_two(const Word* a, int64_t lda, const Word* b, int64_t height, int64_t from, int64_t to, float* c, int64_t ldc, bool add) {
        if (add) {
            _tile_loadd(0, c, ldc * 4);
            _tile_loadd(1, c + 16, ldc * 4);
            _tile_loadd(2, c + 16 * ldc, ldc * 4);
            _tile_loadd(3, c + 16 * ldc + 16, ldc * 4);
        } else {
            QX_TILE_CLEAR(0);
            QX_TILE_CLEAR(1);
            QX_TILE_CLEAR(2);
            QX_TILE_CLEAR(3);
        }
        for (int64_t k = from; k < to; k += 16) {
            _tile_loadd(4, a + k, lda * 4);
            _tile_loadd(6, b + k * 16, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b + (height + k) * 16, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, a + 16 * lda + k, lda * 4);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, c, ldc * 4);
        _tile_stored(1, c + 16, ldc * 4);
        _tile_stored(2, c + 16 * ldc, ldc * 4);
        _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
    }

    static void two_by_one(const Word* a, int64_t lda, const Word* b, int64_t from, int64_t to, float* c, int64_t ldc, bool add) {
        if (add) {
            _tile_loadd(0, c, ldc * 4);
            _tile_loadd(2, c + 16 * ldc, ldc * 4);
        } else {
            QX_TILE_CLEAR(0);
            QX_TILE_CLEAR(2);
        }
        for (int64_t k = from; k < to; k += 16) {
            _tile_loadd(4, a + k, lda * 4);
            _tile_loadd(6, b + k * 16, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, a + 16 * lda + k, lda * 4);
            _tile_dpbf16ps(2, 5, 6);
        }
        _tile_stored(0, c, ldc * 4);
        _tile_stored(2, c + 16 * ldc, ldc * 4);
    }

    static void one_by_two(const Word* a, int64_t lda, const Word* b, int64_t height, int64_t from, int64_t to, float* c, int64_t ldc, bool add) {
        if (add) {
            _tile_loadd(0, c, ldc * 4);
            _tile_loadd(1, c + 16, ldc * 4);
        } else {
            QX_TILE_CLEAR(0);
            QX_TILE_CLEAR(1);
        }
        for (int64_t k = from; k < to; k += 16) {
            _tile_loadd(4, a + k, lda * 4);
            _tile_loadd(6, b + k * 16, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b + (height + k) * 16, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, c, ldc * 4);
        _tile_stored(1, c + 16, ldc * 4);
    }

    static void one_by_one(const Word* a, int64_t lda, const Word* b, int64_t from, int64_t to, float* c, int64_t ldc, bool add) {
        if (add) _tile_loadd(0, c, ldc * 4);
        else QX_TILE_CLEAR(0);
        for (int64_t k = from; k < to; k += 16) {
            _tile_loadd(4, a + k, lda * 4);
            _tile_loadd(6, b + k * 16, 64);
            _tile_dpbf16ps(0, 4, 6);
        }
        _tile_stored(0, c, ldc * 4);
    }
};

}  // namespace QX_NS
}  // namespace qx
