// How the result of a linear layer is cut into one part a thread.
#pragma once
#include <cstdint>

namespace qx {

struct Cut {
    int64_t rows, columns;  // parts along each axis
};

inline int64_t parts(int64_t n, int64_t of) { return (n + of - 1) / of; }

// What a part costs beside its products, in cycles a step of K.
struct PartCosts {
    double pack_row;      // packing a row
    double read_vector;   // reading a vector of weights from far away, with one row
    double hidden_below;  // so many rows of products hide the reading; fewer hide as much of it as they are
};

// The cut whose largest part takes the least time: products, packing of its rows, and reading its weights.
inline Cut cut_of(int64_t rows, int64_t panels, int64_t panel_vectors, int64_t threads, const PartCosts& costs) {
    Cut best{1, 1};
    double least = 0;
    for (int64_t r = 1; r <= threads && r <= rows; ++r) {
        const int64_t c = threads / r < panels ? threads / r : panels;
        const double m = double(parts(rows, r)), v = double(parts(panels, c) * panel_vectors);
        const double bare = m < costs.hidden_below ? 1.0 - m / costs.hidden_below : 0.0;
        const double time = m * v + costs.pack_row * m + costs.read_vector * bare * v;
        if (r == 1 || time < least) {
            least = time;
            best = Cut{r, c};
        }
    }
    return best;
}

}  // namespace qx
