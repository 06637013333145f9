// Brings near what attention over a cache will read, a row of a key or value at a time, in the order in which it is read.
//
// The order follows memory as far as the cache lets it: a processor fetches lines ahead by itself where they are asked
// for one after the other, more of them at a time than a program can.
#pragma once
#include "decode_places.h"

namespace qx {
namespace QX_NS {

template <class Cached, class Places>
class NextRows {
    const Cached* const* key_ = nullptr;  // the next row is `offset_` behind this address; `left_` rows are of one head
    int64_t left_ = 0, offset_ = 0;

    const Places* blocks_[2] = {nullptr, nullptr};  // that which is read, and the next one
    const int64_t unit_, heads_, head_step_, part_step_, size_;
    int64_t block_ = 0, part_ = 0, begin_ = 0, head_ = 0;

    void point() {
        const Places* block = block_ < 2 ? blocks_[block_] : nullptr;
        left_ = !block ? 0 : begin_ + unit_ < block->count ? unit_ : block->count - begin_;
        if (!block) return;
        key_ = block->keys + begin_;
        offset_ = head_ * head_step_ + part_ * part_step_;
    }

    __attribute__((noinline)) void turn() {
        if (++head_ == heads_) {
            head_ = 0;
            begin_ += unit_;
            if (begin_ >= blocks_[block_]->count) {
                begin_ = 0;
                block_ += part_;
                part_ ^= 1;
            }
        }
        point();
    }

public:
    // A block is read by its keys and then its values, those by units of tokens, a unit head by head.
    NextRows(int64_t unit, int64_t heads, int64_t head_step, int64_t part_step, int64_t size) : unit_(unit), heads_(heads), head_step_(head_step), part_step_(part_step), size_(size) {}

    void enter(const Places* block, const Places* next) {
        blocks_[0] = block;
        blocks_[1] = next;
        if (block_ > 0) --block_;
        else part_ = begin_ = head_ = left_ = 0;
        if (left_ == 0) point();
    }

    void row() {
        if (left_ == 0) return;
        const Cached* row = *key_++ + offset_;
        constexpr int64_t line = 64 / int64_t(sizeof(Cached));
        if (size_ == 4 * line)
#pragma GCC unroll 4
            for (int64_t i = 0; i < 4; ++i) __builtin_prefetch(row + i * line, 0, 2);
        else bring_near(row, size_);
        if (--left_ == 0) turn();
    }
};

}  // namespace QX_NS
}  // namespace qx
