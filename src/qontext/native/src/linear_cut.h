// How the result of a linear layer is cut into one part a thread.
#pragma once
#include <cstdint>

namespace qx {

struct Cut {
    int64_t rows, columns;  // parts along each axis
};

inline int64_t parts(int64_t n, int64_t of) { return (n + of - 1) / of; }

// The cut whose largest part takes the least time, in cycles a step of K: products, packing of its rows (`pack_row` each),
// and reading its weights from far away.
inline Cut cut_of(int64_t rows, int64_t panels, int64_t panel_vectors, int64_t threads, double pack_row) {
    constexpr double read_vector = 9.0;
    Cut best{1, 1};
    double least = 0;
    for (int64_t r = 1; r <= threads && r <= rows; ++r) {
        const int64_t c = threads / r < panels ? threads / r : panels;
        const double m = double(parts(rows, r)), v = double(parts(panels, c) * panel_vectors);
        const double time = m * v + pack_row * m + read_vector * v;
        if (r == 1 || time < least) {
            least = time;
            best = Cut{r, c};
        }
    }
    return best;
}

}  // namespace qx
