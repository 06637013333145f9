// Torch's pool is entered through GOMP_parallel, the entry point that gcc emits and that LLVM's runtime offers too.
// Two spinning pools in one process take each other's cores, so our own pool exists only where that entry is missing.
#include "parallel.h"

#include <pthread.h>
#include <time.h>

namespace qx {

namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using GompQuery = int (*)();

GompParallel gomp_parallel = nullptr;
GompQuery gomp_thread_num = nullptr, gomp_num_threads = nullptr, gomp_in_parallel = nullptr;

struct Region {
    Body body;
    void* context;
    int64_t begun, mine;  // when the caller entered, and when it had done its own share
    int count;
};

int64_t now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

// The body of every region: notes when thread 0, which is the caller, is done.
void share(void* p, int thread, int threads) {
    Region* r = static_cast<Region*>(p);
    r->body(r->context, thread, threads);
    if (thread != 0) return;
    r->mine = now();
    r->count = threads;
}

void openmp_entry(void* p) { share(p, gomp_thread_num(), gomp_num_threads()); }

// On a busy machine a region waits for a thread that another process has put off its core: whole time slices, 8 ms for
// 60 us of work, over and over, since a pool that spins between regions has used up its turn when there is work. So a
// caller that has waited longer than the whole work takes alone does work alone for a while, longer each time that
// trying again fails.
constexpr int64_t slack = 200000, shortest_pause = 2000000, longest_pause = 128000000;  // ns
std::atomic<int64_t> alone_until{0}, pause{0};

void judge(const Region& r) {
    const int64_t end = now(), alone = (r.mine - r.begun) * r.count;
    int64_t next = pause.load(std::memory_order_relaxed);
    if (end - r.begun <= alone + slack) {
        if (next) pause.store(next / 2 < shortest_pause ? 0 : next / 2, std::memory_order_relaxed);
        return;
    }
    next = next < shortest_pause ? shortest_pause : next * 2 < longest_pause ? next * 2 : longest_pause;
    pause.store(next, std::memory_order_relaxed);
    alone_until.store(end + next, std::memory_order_relaxed);
}

// One job at a time; a caller that finds the pool busy runs its job alone.
struct Pool {
    pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
    Body body = nullptr;
    void* context = nullptr;
    int workers = 0, wanted = 0, left = 0;
    uint64_t round = 0;
};

constexpr int most_workers = 255;
Pool pool;

struct Worker {
    int number;
    uint64_t seen;
};
Worker workers[most_workers];

void* worker(void* p) {
    Worker& self = *static_cast<Worker*>(p);
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.round == self.seen) pthread_cond_wait(&pool.wake, &pool.lock);
        self.seen = pool.round;
        if (self.number >= pool.wanted) continue;
        const Body body = pool.body;
        void* context = pool.context;
        const int count = pool.wanted + 1;
        pthread_mutex_unlock(&pool.lock);
        body(context, self.number + 1, count);
        pthread_mutex_lock(&pool.lock);
        if (--pool.left == 0) pthread_cond_signal(&pool.done);
    }
}

// A fork keeps only the calling thread: the child starts its pool anew.
void after_fork() { pool = Pool(); }

void own_pool(int threads, Body body, void* context) {
    if (pthread_mutex_trylock(&pool.busy) != 0) return body(context, 0, 1);
    static bool registered = false;
    if (!registered) registered = pthread_atfork(nullptr, nullptr, after_fork) == 0;
    int want = threads - 1 < most_workers ? threads - 1 : most_workers;
    pthread_mutex_lock(&pool.lock);
    while (pool.workers < want) {
        workers[pool.workers] = Worker{pool.workers, pool.round};
        pthread_t id;
        if (pthread_create(&id, nullptr, worker, &workers[pool.workers]) != 0) break;
        pthread_detach(id);
        ++pool.workers;
    }
    if (want > pool.workers) want = pool.workers;
    pool.body = body;
    pool.context = context;
    pool.wanted = pool.left = want;
    ++pool.round;
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    body(context, 0, want + 1);
    pthread_mutex_lock(&pool.lock);
    while (pool.left > 0) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.busy);
}

}  // namespace

void set_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel) {
    gomp_parallel = reinterpret_cast<GompParallel>(parallel);
    gomp_thread_num = reinterpret_cast<GompQuery>(thread_num);
    gomp_num_threads = reinterpret_cast<GompQuery>(num_threads);
    gomp_in_parallel = reinterpret_cast<GompQuery>(in_parallel);
}

void parallel(int threads, Body body, void* context) {
    if (threads <= 1 || (gomp_parallel && gomp_in_parallel())) return body(context, 0, 1);
    Region region{body, context, now(), 0, 1};
    if (region.begun < alone_until.load(std::memory_order_relaxed)) return body(context, 0, 1);
    if (gomp_parallel) gomp_parallel(openmp_entry, &region, unsigned(threads), 0);
    else own_pool(threads, share, &region);
    judge(region);
}

}  // namespace qx
