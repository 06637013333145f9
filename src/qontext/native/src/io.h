// Loads and stores of vectors by data type: fp32, bf16 and fp16 in memory, fp32 in registers.
#pragma once
#include "api.h"
#include "vec.h"

namespace qx {
namespace QX_NS {

struct F32 {
    using T = float;
    static constexpr int64_t code = QX_F32;
    static V load(const T* p) { return QX_NS::load(p); }
    static V load_part(const T* p, int n) { return QX_NS::load_part(p, n); }
    static void store(T* p, V v) { QX_NS::store(p, v); }
    static void store_two(T* p, V v, V next) {
        store(p, v);
        store(p + width, next);
    }
    static void store_part(T* p, V v, int n) { QX_NS::store_part(p, v, n); }
};
struct BF16 {
    using T = uint16_t;
    static constexpr int64_t code = QX_BF16;
    static V load(const T* p) { return load_bf16(p); }
    static V load_part(const T* p, int n) { return load_bf16_part(p, n); }
    static void store(T* p, V v) { store_bf16(p, v); }
    static void store_two(T* p, V v, V next) { store_bf16_two(p, v, next); }
    static void store_part(T* p, V v, int n) { store_bf16_part(p, v, n); }
};
struct F16 {
    using T = uint16_t;
    static constexpr int64_t code = QX_F16;
    static V load(const T* p) { return load_f16(p); }
    static V load_part(const T* p, int n) { return load_f16_part(p, n); }
    static void store(T* p, V v) { store_f16(p, v); }
    static void store_two(T* p, V v, V next) {
        store(p, v);
        store(p + width, next);
    }
    static void store_part(T* p, V v, int n) { store_f16_part(p, v, n); }
};

// Calls f with the type that a dtype code names.
template <class Fn>
static inline void with_type(int64_t dtype, Fn&& f) {
    switch (dtype) {
        case QX_BF16: return f(BF16{});
        case QX_F16: return f(F16{});
        default: return f(F32{});
    }
}

}  // namespace QX_NS
}  // namespace qx
