#include "rows.h"

#include <cstring>

namespace qx {

namespace {

int64_t at(const QxRows& a, int64_t i) {
    return a.index_bytes == 8 ? static_cast<const int64_t*>(a.index)[i] : static_cast<const int32_t*>(a.index)[i];
}

const char* in(const QxRows& a, int64_t row) { return static_cast<const char*>(a.x) + row * a.x_stride_bytes; }
char* out(const QxRows& a, int64_t row) { return static_cast<char*>(a.out) + row * a.out_stride_bytes; }

}  // namespace

int64_t check_index(const QxRows& a, bool* rising) {
    bool up = true;
    int64_t before = -1;
    for (int64_t i = 0; i < a.count; ++i) {
        const int64_t row = at(a, i);
        if (row < 0 || row >= a.bound) return i;
        up = up && row > before;
        before = row;
    }
    if (rising) *rising = up;
    return -1;
}

void gather_rows(const QxRows& a, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(out(a, i), in(a, at(a, i)), size_t(a.row_bytes));
}

void scatter_rising(const QxRows& a, int64_t begin, int64_t end) {
    int64_t low = 0, high = a.count;  // the first index that is not below `begin`
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (at(a, middle) < begin) low = middle + 1;
        else high = middle;
    }
    int64_t row = begin;
    for (int64_t i = low; i < a.count && at(a, i) < end; ++i) {
        const int64_t target = at(a, i);
        zero_rows(a, row, target);
        std::memcpy(out(a, target), in(a, i), size_t(a.row_bytes));
        row = target + 1;
    }
    zero_rows(a, row, end);
}

void zero_rows(const QxRows& a, int64_t begin, int64_t end) {
    if (begin >= end) return;
    if (a.out_stride_bytes == a.row_bytes) {
        std::memset(out(a, begin), 0, size_t(a.row_bytes * (end - begin)));
        return;
    }
    for (int64_t r = begin; r < end; ++r) std::memset(out(a, r), 0, size_t(a.row_bytes));
}

void scatter_rows(const QxRows& a, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(out(a, at(a, i)), in(a, i), size_t(a.row_bytes));
}

}  // namespace qx
