// Brings near what attention over a cache will read, a row of a key or value at a time, in the order in which it is read.
//
// The order follows memory as far as the cache lets it: a processor fetches lines ahead by itself where they are asked
// for one after the other, more of them at a time than a program can.
#pragma once
#include "decode_places.h"

namespace qx {
namespace QX_NS {

template <class Places>
class Ahead {
    using Cached = std::remove_const_t<std::remove_pointer_t<std::remove_reference_t<decltype(Places::keys[0])>>>;

    const Places* blocks_[2] = {nullptr, nullptr};  // that which is read, and the next one
    int64_t unit_, heads_, head_step_, part_step_, size_;
    int64_t block_ = 0, part_ = 0, begin_ = 0, head_ = 0, at_ = 0;

public:
    // A block is read by its keys and then its values, those by units of tokens, a unit head by head.
    Ahead(int64_t unit, int64_t heads, int64_t head_step, int64_t part_step, int64_t size) : unit_(unit), heads_(heads), head_step_(head_step), part_step_(part_step), size_(size) {}

    void enter(const Places* block, const Places* next) {
        blocks_[0] = block;
        blocks_[1] = next;
        if (block_ > 0) --block_;
        else part_ = begin_ = head_ = at_ = 0;
    }

    void row() {
        if (block_ > 1 || !blocks_[block_]) return;
        const Places& block = *blocks_[block_];
        bring_near(block.keys[begin_ + at_] + head_ * head_step_ + part_ * part_step_, size_);
        if (begin_ + ++at_ < block.count && at_ < unit_) return;
        const int64_t end = begin_ + at_;
        at_ = 0;
        if (++head_ < heads_) return;
        head_ = 0;
        begin_ = end;
        if (begin_ < block.count) return;
        begin_ = 0;
        if (++part_ < 2) return;
        part_ = 0;
        ++block_;
    }
};

}  // namespace QX_NS
}  // namespace qx
