// Instruction sets by cpuid, and whether the operating system saves their registers (xgetbv, and for AMX a request).
#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace qx {

#if defined(__x86_64__)

namespace {

struct Cpu {
    bool avx2 = false, avx512 = false, avx512_bf16 = false, amx = false;
};

uint64_t saved_registers() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t(high) << 32) | low;
}

// Linux hands out the 8 KiB of tile registers only on request.
bool request_tiles() {
#if defined(__linux__)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

bool bit(uint32_t word, int n) { return (word >> n) & 1u; }

Cpu detect() {
    Cpu cpu;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return cpu;
    const bool fma = bit(c, 12) && bit(c, 29);  // with F16C
    const uint64_t saved = saved_registers();
    uint32_t a7, b7, c7, d7;
    if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return cpu;
    const uint32_t last = a7;
    cpu.avx2 = fma && bit(b7, 5) && (saved & 0x6) == 0x6;
    cpu.avx512 = cpu.avx2 && bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31) && (saved & 0xe6) == 0xe6;
    if (cpu.avx512 && last >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) cpu.avx512_bf16 = bit(a, 5) && bit(c7, 11) && bit(c7, 1);  // with VNNI, and VBMI, which Cooper Lake has not
    cpu.amx = cpu.avx512_bf16 && bit(d7, 22) && bit(d7, 24) && (saved & 0x60000) == 0x60000 && request_tiles();
    return cpu;
}

}  // namespace

bool isa_supported(int64_t isa) {
    static const Cpu cpu = detect();
    switch (isa) {
        case QX_GENERIC: return true;
        case QX_AVX2: return cpu.avx2;
        case QX_AVX512: return cpu.avx512;
        case QX_AVX512_BF16: return cpu.avx512_bf16;
        case QX_AMX: return cpu.amx;
        default: return false;
    }
}

#else

bool isa_supported(int64_t isa) { return isa == QX_GENERIC; }

#endif

}  // namespace qx
