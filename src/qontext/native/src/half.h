// Scalar conversions of bfloat16 and float16, rounding to nearest even.
#pragma once
#include <cstdint>
#include <cstring>

namespace qx {
namespace QX_NS {

static inline float from_bits(uint32_t bits) {
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
static inline uint32_t to_bits(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return bits;
}

static inline float bf16_to_float(uint16_t h) { return from_bits(uint32_t(h) << 16); }
static inline uint16_t float_to_bf16(float f) {
    const uint32_t bits = to_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t((bits >> 16) | 0x40);
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float f16_to_float(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | (fraction << 13));
    if (exponent) return from_bits(sign | ((exponent + 112) << 23) | (fraction << 13));
    const float small = float(fraction) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -small : small;
}
static inline uint16_t float_to_f16(float f) {
    const uint32_t bits = to_bits(f), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return uint16_t(sign | 0x7e00u);
    if (size >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
    if (size < 0x38800000u) {  // denormal: adding 0.5 lets the hardware round at the right place
        return uint16_t(sign | (to_bits(from_bits(size) + 0.5f) - 0x3f000000u));
    }
    return uint16_t(sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13));
}

}  // namespace QX_NS
}  // namespace qx
