#include "scratch.h"

#include <pthread.h>
#include <stdlib.h>

namespace qx {

namespace {

struct Block {
    void* at[2] = {nullptr, nullptr};
    size_t bytes[2] = {0, 0};
};

thread_local Block block;  // no destructor: that would need the C++ runtime; the key below frees it
pthread_key_t key;
pthread_once_t once = PTHREAD_ONCE_INIT;

void release(void* p) {
    Block* b = static_cast<Block*>(p);
    for (int i = 0; i < 2; ++i) {
        free(b->at[i]);
        b->at[i] = nullptr;
        b->bytes[i] = 0;
    }
}

void make_key() { pthread_key_create(&key, release); }

}  // namespace

void* scratch(int slot, size_t bytes) {
    Block& b = block;
    if (b.bytes[slot] >= bytes && b.at[slot]) return b.at[slot];
    pthread_once(&once, make_key);
    pthread_setspecific(key, &b);
    free(b.at[slot]);
    const size_t size = (bytes + 4095) & ~size_t(4095);
    if (posix_memalign(&b.at[slot], 4096, size ? size : 4096) != 0) {
        b.at[slot] = nullptr;
        b.bytes[slot] = 0;
        return nullptr;
    }
    b.bytes[slot] = size;
    return b.at[slot];
}

}  // namespace qx
