// Scratch memory of one thread: grows to the largest request, is reused by every call, and goes with the thread.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qx {

// At least `bytes` bytes, aligned to 64, not zeroed, valid until this thread asks again; null when there is no memory.
// Slot 0 serves a task running on the thread, slot 1 the call that hands tasks out.
void* scratch(int slot, size_t bytes);

// Carves aligned arrays out of one block. A first pass over a null block adds up the size.
class Carver {
public:
    explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
    template <class T>
    T* take(size_t count) {
        char* at = base_ ? base_ + used_ : nullptr;
        used_ += (count * sizeof(T) + 63) & ~size_t(63);
        return reinterpret_cast<T*>(at);
    }
    size_t used() const { return used_; }

private:
    char* base_;
    size_t used_ = 0;
};

}  // namespace qx
