// Threads: the pool of the OpenMP runtime that torch has loaded, or a small one of our own.
#pragma once
#include <atomic>
#include <cstdint>

namespace qx {

using Body = void (*)(void* context, int thread, int threads);

// Runs body(context, t, n) for t in [0, n) with n <= threads; n is 1 inside another parallel region.
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

// Tasks [0, count) taken one by one by whichever thread is free.
template <class F>
void for_tasks(int64_t count, int threads, F&& f) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i) f(i);
        return;
    }
    struct Context {
        F& f;
        int64_t count;
        std::atomic<int64_t> next;
    } context{f, count, {0}};
    parallel(
        threads,
        [](void* p, int, int) {
            Context& c = *static_cast<Context*>(p);
            for (int64_t i; (i = c.next.fetch_add(1, std::memory_order_relaxed)) < c.count;) c.f(i);
        },
        &context);
}

}  // namespace qx
