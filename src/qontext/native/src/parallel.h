// Threads: the pool of the OpenMP runtime that torch has loaded, or a small one of our own.
#pragma once
#include <atomic>
#include <cstdint>

namespace qx {

using Body = void (*)(void* context, int thread, int threads);

// Runs body(context, t, n) for t in [0, n) with n <= threads; n is 1 inside another parallel region, and for a while after
// regions that took longer than one thread would have.
void parallel(int threads, Body body, void* context);

void set_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel);

// Rows [begin, end) in equal parts, one a thread: the same thread gets the same rows in each call, which keeps them in
// its cache. Runs on the caller alone when there is less than `grain` work.
template <class F>
void for_rows(int64_t rows, int64_t work, int64_t grain, int threads, F&& f) {
    if (rows <= 0) return;
    int64_t most = work / (grain > 0 ? grain : 1);
    if (most <= 1 || threads <= 1 || rows == 1) return f(int64_t(0), rows);
    struct Context {
        F& f;
        int64_t rows;
    } context{f, rows};
    parallel(
        threads,
        [](void* p, int thread, int count) {
            Context& c = *static_cast<Context*>(p);
            const int64_t begin = c.rows * thread / count, end = c.rows * (thread + 1) / count;
            if (begin < end) c.f(begin, end);
        },
        &context);
}

// Tasks [0, count) in runs of `run`, taken by whichever thread is free: f(begin, end, next, next_end) with the run to do
// and the one that the same thread does next, empty at the end.
template <class F>
void for_runs(int64_t count, int64_t run, int threads, F&& f) {
    struct Context {
        F& f;
        int64_t count, run;
        std::atomic<int64_t> taken;
        int64_t take() {
            const int64_t at = taken.fetch_add(run, std::memory_order_relaxed);
            return at < count ? at : count;
        }
        int64_t end(int64_t at) const { return at + run < count ? at + run : count; }
    } context{f, count, run, {0}};
    const Body body = [](void* p, int, int) {
        Context& c = *static_cast<Context*>(p);
        for (int64_t at = c.take(); at < c.count;) {
            const int64_t next = c.take();
            c.f(at, c.end(at), next, c.end(next));
            at = next;
        }
    };
    parallel(count > run ? threads : 1, body, &context);
}

}  // namespace qx
