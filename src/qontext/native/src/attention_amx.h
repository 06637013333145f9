// Attention arithmetic in bfloat16 on AMX tiles: 16 x 32 pairs' worth of products an instruction, fp32 sums.
#pragma once
#include "attention_bf16.h"

namespace qx {
namespace QX_NS {

// All eight tiles are 16 rows of 64 bytes: four hold sums, two rows of A, two columns of B.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {0};
    uint16_t row_bytes[16];
    uint8_t rows[16];
    TileConfig() {
        for (int i = 0; i < 16; ++i) {
            row_bytes[i] = i < 8 ? 64 : 0;
            rows[i] = i < 8 ? 16 : 0;
        }
    }
};

// Takes the tiles for the life of a task.
struct Tiles {
    Tiles() {
        const TileConfig config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
};

struct TileCore : PairCore {
    static constexpr int64_t head_step = 32;
    static constexpr int64_t key_step = 32;
    static constexpr int64_t row_step = 16;

    static int64_t row_block(int64_t score_ld) { return 32768 / (score_ld * 4) >= 64 ? 64 : 32; }
    static void pack_row(const T* from, int64_t size, Word* to) { pack_pair_row(from, size, head_step, to); }
    static void pack_keys(const T* k, int64_t token, int64_t keys, int64_t size, Word* to) { pack_pair_keys(k, token, keys, size, head_step, 1, to); }
    static void pack_values(const T* v, int64_t token, int64_t keys, int64_t size, Word* to) { pack_pair_values(v, token, keys, size, key_step, 1, to); }

    static void scores(int64_t rows, const Word* q, int64_t ldq, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo) {
        (void)keys;
        product(rows, q, ldq, packed, round_up(size, head_step) / 2, begin / 16, (end + 15) / 16, 0, round_up(size, head_step) / 2, out, ldo, false);
    }

    static void values(int64_t rows, const Word* probabilities, int64_t ldp, const Word* packed, int64_t keys, int64_t size, int64_t begin, int64_t end, float* out, int64_t ldo, bool add) {
        product(rows, probabilities, ldp, packed, round_up(keys, key_step) / 2, 0, (size + 15) / 16, begin / 2, end / 2, out, ldo, add);
    }

    // Columns [16 first, 16 last) of C (+)= A[:, from..to] * B[from..to, :] in words; B has panels of `height` words x 16.
    static void product(int64_t rows, const Word* a, int64_t lda, const Word* b, int64_t height, int64_t first, int64_t last, int64_t from, int64_t to, float* c, int64_t ldc, bool add) {
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
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
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
            _tile_zero(0);
            _tile_zero(2);
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
            _tile_zero(0);
            _tile_zero(1);
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
        else _tile_zero(0);
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
