#include "vmm/cpuid_policy.hpp"

#include <bit>

namespace bulkhead {

namespace {

using namespace cpuid;

// --- Allow-lists: what a guest may see of the physical processor's features -------------------------------

constexpr u32 allowed_1_ecx = leaf1_ecx::sse3 | leaf1_ecx::pclmulqdq | leaf1_ecx::ssse3 | leaf1_ecx::fma |
                              leaf1_ecx::cx16 | leaf1_ecx::pcid | leaf1_ecx::sse41 | leaf1_ecx::sse42 |
                              leaf1_ecx::movbe | leaf1_ecx::popcnt | leaf1_ecx::aes | leaf1_ecx::xsave |
                              leaf1_ecx::avx | leaf1_ecx::f16c | leaf1_ecx::rdrand;
constexpr u32 allowed_1_edx =
    leaf1_edx::fpu | leaf1_edx::vme | leaf1_edx::de | leaf1_edx::pse | leaf1_edx::tsc | leaf1_edx::msr |
    leaf1_edx::pae | leaf1_edx::mce | leaf1_edx::cx8 | leaf1_edx::sep | leaf1_edx::pge | leaf1_edx::mca |
    leaf1_edx::cmov | leaf1_edx::pat | leaf1_edx::pse36 | leaf1_edx::clfsh | leaf1_edx::mmx |
    leaf1_edx::fxsr | leaf1_edx::sse | leaf1_edx::sse2 | leaf1_edx::ss;
constexpr u32 fdp_exception_only = bit<u32>(6), fpu_selectors_deprecated = bit<u32>(13),
              avx512pf = bit<u32>(26), avx512er = bit<u32>(27);
constexpr u32 allowed_7_ebx =
    leaf7_ebx::fsgsbase | leaf7_ebx::tsc_adjust | leaf7_ebx::bmi1 | leaf7_ebx::avx2 | fdp_exception_only |
    leaf7_ebx::smep | leaf7_ebx::bmi2 | leaf7_ebx::erms | leaf7_ebx::invpcid | fpu_selectors_deprecated |
    leaf7_ebx::avx512f | leaf7_ebx::avx512dq | leaf7_ebx::rdseed | leaf7_ebx::adx | leaf7_ebx::smap |
    leaf7_ebx::avx512ifma | leaf7_ebx::clflushopt | leaf7_ebx::clwb | avx512pf | avx512er |
    leaf7_ebx::avx512cd | leaf7_ebx::sha | leaf7_ebx::avx512bw | leaf7_ebx::avx512vl;
constexpr u32 prefetchwt1 = bit<u32>(0), cldemote = bit<u32>(25), movdiri = bit<u32>(27),
              movdir64b = bit<u32>(28);
// Protection keys stay hidden: the emulator's page walk does not honour them. With PKU go XCR0[9] and
// CR4.PKE, so that PKRU is out of a guest's reach and need not be switched. Shadow stacks and IBT likewise,
// for the same reason.
constexpr u32 allowed_7_ecx = prefetchwt1 | leaf7_ecx::avx512vbmi | leaf7_ecx::umip | leaf7_ecx::avx512vbmi2 |
                              leaf7_ecx::gfni | leaf7_ecx::vaes | leaf7_ecx::vpclmulqdq |
                              leaf7_ecx::avx512vnni | leaf7_ecx::avx512bitalg | leaf7_ecx::avx512vpopcntdq |
                              leaf7_ecx::rdpid | cldemote | movdiri | movdir64b;
// Speculation controls (bits 26-31) and MD_CLEAR stay hidden while their MSRs are.
constexpr u32 avx512_4vnniw = bit<u32>(2), avx512_4fmaps = bit<u32>(3), fsrm = bit<u32>(4),
              avx512_vp2intersect = bit<u32>(8), serialize = bit<u32>(14), avx512_fp16 = bit<u32>(23);
constexpr u32 allowed_7_edx =
    avx512_4vnniw | avx512_4fmaps | fsrm | avx512_vp2intersect | serialize | avx512_fp16;
constexpr u32 avx_vnni = bit<u32>(4), avx512_bf16 = bit<u32>(5),
              fast_rep = bit<u32>(10) | bit<u32>(11) | bit<u32>(12);
constexpr u32 allowed_7_1_eax = avx_vnni | avx512_bf16 | fast_rep;

constexpr u32 xop = bit<u32>(11), fma4 = bit<u32>(16), tbm = bit<u32>(21), topology_extensions = bit<u32>(22);
constexpr u32 allowed_ext1_ecx = ext1_ecx::lahf | ext1_ecx::cmp_legacy | ext1_ecx::cr8_legacy |
                                 ext1_ecx::abm | ext1_ecx::sse4a | ext1_ecx::misalign_sse |
                                 ext1_ecx::prefetchw | xop | fma4 | tbm | topology_extensions;
// Bits of leaf 1 EDX that AMD repeats in 80000001h EDX, at the same places.
constexpr u32 repeated_edx = 0x0183F3FF;
constexpr u32 three_d_now = bit<u32>(30) | bit<u32>(31);
constexpr u32 allowed_ext1_edx = ext1_edx::syscall | ext1_edx::nx | ext1_edx::mmx_ext | ext1_edx::ffxsr |
                                 ext1_edx::page1gb | ext1_edx::rdtscp | ext1_edx::long_mode | three_d_now;
constexpr u32 clzero = bit<u32>(0), xsave_error_pointers = bit<u32>(2), wbnoinvd = bit<u32>(9);
constexpr u32 allowed_ext8_ebx = clzero | xsave_error_pointers | wbnoinvd;
constexpr u32 invariant_tsc = bit<u32>(8);
constexpr u32 lfence_serializing = bit<u32>(2), null_selector_clears_base = bit<u32>(6);

// Features that fall with the vector state they work on.
constexpr u32 avx_1_ecx = leaf1_ecx::avx | leaf1_ecx::fma | leaf1_ecx::f16c;
constexpr u32 avx_7_ecx = leaf7_ecx::vaes | leaf7_ecx::vpclmulqdq;
constexpr u32 avx512_7_ebx = leaf7_ebx::avx512f | leaf7_ebx::avx512dq | leaf7_ebx::avx512ifma | avx512pf |
                             avx512er | leaf7_ebx::avx512cd | leaf7_ebx::avx512bw | leaf7_ebx::avx512vl;
constexpr u32 avx512_7_ecx = leaf7_ecx::avx512vbmi | leaf7_ecx::avx512vbmi2 | leaf7_ecx::avx512vnni |
                             leaf7_ecx::avx512bitalg | leaf7_ecx::avx512vpopcntdq;
constexpr u32 avx512_7_edx = avx512_4vnniw | avx512_4fmaps | avx512_vp2intersect | avx512_fp16;

constexpr u32 arat = bit<u32>(2);  // leaf 6 EAX: the local APIC's timer runs in every C-state
constexpr u32 xsaveopt = bit<u32>(0), xsavec = bit<u32>(1), xgetbv1 = bit<u32>(2), xsaves_bit = bit<u32>(3);

constexpr u32 hypervisor_ebx = 0x6B6C7542, hypervisor_ecx = 0x64616568, hypervisor_edx = 0x6B6C7542;
static_assert(hypervisor_ebx == ('B' | 'u' << 8 | 'l' << 16 | 'k' << 24));
static_assert(hypervisor_ecx == ('h' | 'e' << 8 | 'a' << 16 | 'd' << 24));

constexpr u32 ceil_log2(u32 value) {
    return value <= 1 ? 0 : 32 - static_cast<u32>(std::countl_zero(value - 1));
}

constexpr u64 greatest_common_divisor(u64 a, u64 b) {
    while (b != 0) {
        const u64 rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// No TSC is that fast: 256 GHz.
constexpr u64 most_tsc_hz = u64{1} << 38;

}  // namespace

TscRatio tsc_ratio(u64 tsc_hz, u64 crystal_hz) {
    if (tsc_hz == 0 || tsc_hz >= most_tsc_hz) return {.error_hz = tsc_hz};
    if (crystal_hz != 0 && crystal_hz <= 0xFFFFFFFF) {
        const u64 divisor = greatest_common_divisor(tsc_hz, crystal_hz);
        if (tsc_hz / divisor <= 0xFFFFFFFF)
            return {.denominator = static_cast<u32>(crystal_hz / divisor),
                    .numerator = static_cast<u32>(tsc_hz / divisor),
                    .crystal_hz = static_cast<u32>(crystal_hz)};
    }
    for (u32 n = 1; n <= 64; ++n)
        if (tsc_hz % n == 0 && tsc_hz / n <= 0xFFFFFFFF)
            return {.denominator = 1, .numerator = n, .crystal_hz = static_cast<u32>(tsc_hz / n)};
    // No small divisor: round.
    u32 n = 2;
    while (tsc_hz / n > 0xFFFFFFFF) n *= 2;
    return {
        .denominator = 1, .numerator = n, .crystal_hz = static_cast<u32>(tsc_hz / n), .error_hz = tsc_hz % n};
}

void CpuidPolicy::put(Slot& slot, const CpuidResult& result, Patch patch, bool subleaves) {
    if (slot.count == 0) {
        slot.first = static_cast<u8>(entries_.size());
        slot.subleaves = subleaves;
    }
    if (entries_.push_back({.result = result, .patch = patch})) ++slot.count;
}

Result<> CpuidPolicy::build(const PhysicalMachine& machine, const CpuidParameters& parameters) {
    if (parameters.vcpus == 0 || parameters.vcpus > 64 || parameters.vcpu >= parameters.vcpus)
        return fail("a VM has 1 to 64 virtual processors, not {}", parameters.vcpus);
    if (parameters.threads_per_core == 0 || parameters.vcpus % parameters.threads_per_core != 0)
        return fail("{} virtual processors cannot be cores of {} threads", parameters.vcpus,
                    parameters.threads_per_core);
    clear();
    parameters_ = parameters;
    static_cast<void>(entries_.push_back({}));
    build_vendor(machine);
    if ((machine.cpuid(1, 0).edx & leaf1_edx::fpu) == 0 || max_extended_ < extended_base + 1)
        return fail("the processor reports no FPU or no extended CPUID leaves");
    build_frequency();
    build_xsave(machine);
    build_features(machine);
    build_caches(machine);
    build_topology();
    build_extended(machine);
    derive_masks();
    mark_constant();
    return {};
}

void CpuidPolicy::mark_constant() {
    const auto mark = [this](Slot& slot) {
        slot.constant = slot.count == 1 && !slot.subleaves && entries_[slot.first].patch == Patch::none;
    };
    for (u32 n = 0; n <= max_basic_; ++n) mark(basic_[n]);
    for (u32 n = 0; n < extended_slots && extended_base + n <= max_extended_; ++n) mark(extended_[n]);
}

void CpuidPolicy::clear() {
    entries_.clear();
    for (Slot& slot : basic_) slot = {};
    for (Slot& slot : extended_) slot = {};
    for (Component& component : components_) component = {};
    vendor_ = CpuVendor::other;
    ratio_ = {};
    xsaves_ = false;
    physical_bits_ = 36;
    linear_bits_ = 48;
    cr4_mask_ = xcr0_mask_ = efer_mask_ = 0;
}

void CpuidPolicy::build_vendor(const PhysicalMachine& machine) {
    const CpuidResult basic = machine.cpuid(0, 0);
    if (basic.ebx == 0x756E6547 && basic.edx == 0x49656E69 && basic.ecx == 0x6C65746E) {
        vendor_ = CpuVendor::intel;
    } else if ((basic.ebx == 0x68747541 && basic.edx == 0x69746E65 && basic.ecx == 0x444D4163) ||
               (basic.ebx == 0x6F677948 && basic.edx == 0x6E65476E && basic.ecx == 0x656E6975)) {
        vendor_ = CpuVendor::amd;
    }
    max_basic_ = basic.eax;
    if (max_basic_ > basic_slots - 1) max_basic_ = basic_slots - 1;
    if (vendor_ == CpuVendor::intel) {
        // Leaf 15h tells an Intel guest its TSC's frequency, even where the physical processor is silent.
        if (max_basic_ < 0x16) max_basic_ = 0x16;
    } else if (max_basic_ > 0xD) {
        max_basic_ = 0xD;
    }
    put(basic_[0], {max_basic_, basic.ebx, basic.ecx, basic.edx});

    max_extended_ = machine.cpuid(extended_base, 0).eax;
    if (max_extended_ < extended_base) max_extended_ = 0;
    const u32 highest = vendor_ == CpuVendor::intel ? 8 : extended_slots - 1;
    if (max_extended_ > extended_base + highest) max_extended_ = extended_base + highest;
}

void CpuidPolicy::build_features(const PhysicalMachine& machine) {
    const bool has_xsave = xcr0_mask_ != 0;
    const bool has_avx = (xcr0_mask_ & xcr0::avx) != 0;
    const bool has_avx512 = (xcr0_mask_ & xcr0::avx512) == xcr0::avx512;

    const CpuidResult one = machine.cpuid(1, 0);
    CpuidResult guest{one.eax, one.ebx & 0xFFFF, one.ecx & allowed_1_ecx, one.edx & allowed_1_edx};
    const u32 logical = u32{1} << ceil_log2(parameters_.vcpus);
    guest.ebx |= (logical & 0xFF) << 16 | parameters_.vcpu << 24;
    // What the VMM emulates is there whatever the physical processor has.
    guest.edx |= leaf1_edx::apic | leaf1_edx::mtrr;
    if (parameters_.vcpus > 1) guest.edx |= leaf1_edx::htt;
    if (parameters_.x2apic) guest.ecx |= leaf1_ecx::x2apic;
    if (parameters_.tsc_deadline) guest.ecx |= leaf1_ecx::tsc_deadline;
    if (parameters_.hypervisor) guest.ecx |= leaf1_ecx::hypervisor;
    if (parameters_.monitor) guest.ecx |= one.ecx & leaf1_ecx::monitor;
    if (!has_xsave) guest.ecx &= ~leaf1_ecx::xsave;
    if (!has_avx) guest.ecx &= ~avx_1_ecx;
    put(basic_[1], guest, Patch::leaf1);

    if (vendor_ == CpuVendor::intel && max_basic_ >= 2) put(basic_[2], machine.cpuid(2, 0));
    if ((guest.ecx & leaf1_ecx::monitor) != 0 && max_basic_ >= 5) {
        const CpuidResult five = machine.cpuid(5, 0);
        put(basic_[5], {five.eax & 0xFFFF, five.ebx & 0xFFFF, 0, 0});
    }
    if (max_basic_ >= 6) put(basic_[6], {arat, 0, 0, 0});
    if (max_basic_ < 7) return;

    const CpuidResult seven = machine.cpuid(7, 0);
    const bool has_subleaf1 = seven.eax >= 1;
    guest = {has_subleaf1 ? 1U : 0U, seven.ebx & allowed_7_ebx, seven.ecx & allowed_7_ecx,
             seven.edx & allowed_7_edx};
    if (parameters_.la57) guest.ecx |= seven.ecx & leaf7_ecx::la57;
    if (!has_avx) {
        guest.ebx &= ~leaf7_ebx::avx2;
        guest.ecx &= ~avx_7_ecx;
    }
    if (!has_avx512) {
        guest.ebx &= ~avx512_7_ebx;
        guest.ecx &= ~avx512_7_ecx;
        guest.edx &= ~avx512_7_edx;
    }
    put(basic_[7], guest, Patch::none, true);
    if (!has_subleaf1) return;
    guest = {machine.cpuid(7, 1).eax & allowed_7_1_eax, 0, 0, 0};
    if (!has_avx) guest.eax &= ~avx_vnni;
    if (!has_avx512) guest.eax &= ~avx512_bf16;
    put(basic_[7], guest);
}

// One cache, as shared among the virtual processors: the last level by all of them, the others by the
// threads of a core.
CpuidResult CpuidPolicy::cache_level(CpuidResult physical, bool amd) const {
    const u32 cache = static_cast<u32>(extract(physical.eax, 7, 5));
    const u32 sharing = u32{1} << ceil_log2(cache >= 3 ? parameters_.vcpus : parameters_.threads_per_core);
    const u32 cores = u32{1} << ceil_log2(parameters_.vcpus / parameters_.threads_per_core);
    physical.eax &= 0x3FFF;
    physical.eax |= (sharing - 1) << 14;
    if (!amd) physical.eax |= (cores - 1) << 26;
    return physical;
}

void CpuidPolicy::build_caches(const PhysicalMachine& machine) {
    constexpr u32 most_caches = 6;
    if (vendor_ == CpuVendor::intel && max_basic_ >= 4) {
        for (u32 n = 0; n < most_caches; ++n) {
            const CpuidResult cache = machine.cpuid(4, n);
            if ((cache.eax & 0x1F) == 0) break;
            put(basic_[4], cache_level(cache, false), Patch::none, true);
        }
    }
    const u32 leaf = extended_base + 0x1D;
    if (vendor_ == CpuVendor::amd && max_extended_ >= leaf) {
        for (u32 n = 0; n < most_caches; ++n) {
            const CpuidResult cache = machine.cpuid(leaf, n);
            if ((cache.eax & 0x1F) == 0) break;
            put(extended_[0x1D], cache_level(cache, true), Patch::none, true);
        }
    }
}

void CpuidPolicy::build_topology() {
    const u32 threads = parameters_.threads_per_core;
    const u32 id = parameters_.vcpu;
    const auto build = [&](Slot& slot) {
        put(slot, {ceil_log2(threads), threads, 0 | 1U << 8, id}, Patch::none, true);
        put(slot, {ceil_log2(parameters_.vcpus), parameters_.vcpus, 1 | 2U << 8, id});
    };
    if (max_basic_ >= 0xB) build(basic_[0xB]);
    if (max_basic_ >= 0x1F) build(basic_[0x1F]);
}

void CpuidPolicy::build_frequency() {
    ratio_ = tsc_ratio(parameters_.tsc_hz, parameters_.timer_hz);
    if (vendor_ != CpuVendor::intel || ratio_.denominator == 0) return;
    put(basic_[0x15], {ratio_.denominator, ratio_.numerator, ratio_.crystal_hz, 0});
    const u32 mhz = static_cast<u32>(((parameters_.tsc_hz + 500'000) / 1'000'000) & 0xFFFF);
    put(basic_[0x16], {mhz, mhz, 100, 0});
}

void CpuidPolicy::build_xsave(const PhysicalMachine& machine) {
    const CpuidResult one = machine.cpuid(1, 0);
    if ((one.ecx & leaf1_ecx::xsave) == 0 || max_basic_ < 0xD) return;
    const CpuidResult physical = machine.cpuid(0xD, 0);
    u64 mask = (physical.eax | u64{physical.edx} << 32) & parameters_.xcr0;
    mask &= xcr0::x87 | xcr0::sse | xcr0::avx | xcr0::avx512;
    // Whole sets only, each with what it builds on.
    if ((mask & xcr0::sse) == 0) mask &= ~(xcr0::avx | xcr0::avx512);
    if ((mask & xcr0::avx) == 0 || (mask & xcr0::avx512) != xcr0::avx512) mask &= ~xcr0::avx512;
    mask |= xcr0::x87;
    components_[0] = {0, 160, false};
    components_[1] = {160, 256, false};
    for (u32 n = 2; n < 16; ++n) {
        if (!has_bit(mask, n)) continue;
        const CpuidResult component = machine.cpuid(0xD, n);
        components_[n] = {component.ebx, component.eax, has_bit(component.ecx, 1)};
    }
    xcr0_mask_ = mask;

    const u32 instructions = machine.cpuid(0xD, 1).eax;
    u32 allowed = instructions & (xsaveopt | xsavec | xgetbv1);
    xsaves_ = parameters_.xsaves && (instructions & xsaves_bit) != 0;
    if (xsaves_) allowed |= xsaves_bit;

    Slot& slot = basic_[0xD];
    put(slot, {static_cast<u32>(mask), 0, xsave_size(mask), static_cast<u32>(mask >> 32)}, Patch::xsave,
        true);
    put(slot, {allowed, 0, 0, 0},
        (allowed & (xsavec | xsaves_bit)) != 0 ? Patch::xsave_compact : Patch::none);
    for (u32 n = 2; n < 16 && (mask >> n) != 0; ++n) {
        const Component& component = components_[n];
        put(slot, {component.size, component.offset, component.aligned ? 2U : 0U, 0});
    }
}

// The legacy region and header take 576 bytes, whatever is enabled.
u32 CpuidPolicy::xsave_size(u64 components) const {
    u32 end = 576;
    for (u32 n = 2; n < 16; ++n) {
        const u32 after = components_[n].offset + components_[n].size;
        if (has_bit(components, n) && after > end) end = after;
    }
    return end;
}

u32 CpuidPolicy::compact_size(u64 components) const {
    u32 end = 576;
    for (u32 n = 2; n < 16; ++n) {
        if (!has_bit(components, n)) continue;
        if (components_[n].aligned) end = (end + 63) & ~63U;
        end += components_[n].size;
    }
    return end;
}

void CpuidPolicy::build_extended(const PhysicalMachine& machine) {
    const bool amd = vendor_ == CpuVendor::amd;
    const CpuidResult zero = machine.cpuid(extended_base, 0);
    put(extended_[0], {max_extended_, amd ? zero.ebx : 0, amd ? zero.ecx : 0, amd ? zero.edx : 0});

    const CpuidResult one = machine.cpuid(extended_base + 1, 0);
    CpuidResult guest{one.eax, one.ebx, one.ecx & allowed_ext1_ecx, one.edx & allowed_ext1_edx};
    if (amd) {
        guest.edx |= leaf1().edx & repeated_edx;
        // As HTT of leaf 1: without it, several logical processors would be the threads of one core.
        guest.ecx &= ~ext1_ecx::cmp_legacy;
        if (parameters_.vcpus > parameters_.threads_per_core) guest.ecx |= ext1_ecx::cmp_legacy;
    } else {
        guest.ecx &= ext1_ecx::lahf | ext1_ecx::abm | ext1_ecx::prefetchw;
        guest.edx &=
            ext1_edx::syscall | ext1_edx::nx | ext1_edx::page1gb | ext1_edx::rdtscp | ext1_edx::long_mode;
    }
    if ((xcr0_mask_ & xcr0::avx) == 0) guest.ecx &= ~(xop | fma4);
    if (max_extended_ < extended_base + 0x1E) guest.ecx &= ~topology_extensions;
    put(extended_[1], guest);

    for (u32 n = 2; n <= 6; ++n)  // the brand string; caches and TLBs
        if (max_extended_ >= extended_base + n) put(extended_[n], machine.cpuid(extended_base + n, 0));
    if (max_extended_ >= extended_base + 7) put(extended_[7], {0, 0, 0, invariant_tsc});
    if (max_extended_ >= extended_base + 8) {
        const CpuidResult eight = machine.cpuid(extended_base + 8, 0);
        physical_bits_ = static_cast<u8>(eight.eax);
        if (physical_bits_ > parameters_.physical_bits) physical_bits_ = parameters_.physical_bits;
        if (physical_bits_ < 32) physical_bits_ = 32;
        if (physical_bits_ > 52) physical_bits_ = 52;
        linear_bits_ = (leaf7().ecx & leaf7_ecx::la57) != 0 ? 57 : 48;
        CpuidResult sizes{u32{physical_bits_} | u32{linear_bits_} << 8, eight.ebx & allowed_ext8_ebx, 0, 0};
        if (amd) {
            sizes.ecx = (parameters_.vcpus - 1) | ceil_log2(parameters_.vcpus) << 12;
        } else {
            sizes.ebx &= wbnoinvd;
        }
        put(extended_[8], sizes);
    }
    if (!amd) return;
    for (const u32 n : {0x19U, 0x1AU})  // 1 GiB TLBs; how wide SSE and AVX units are
        if (max_extended_ >= extended_base + n) put(extended_[n], machine.cpuid(extended_base + n, 0));
    if (max_extended_ >= extended_base + 0x1E) {
        const u32 threads = parameters_.threads_per_core;
        put(extended_[0x1E], {parameters_.vcpu, parameters_.vcpu / threads | (threads - 1) << 8, 0, 0});
    }
    if (max_extended_ >= extended_base + 0x21) {
        const u32 allowed = lfence_serializing | null_selector_clears_base;
        put(extended_[0x21], {machine.cpuid(extended_base + 0x21, 0).eax & allowed, 0, 0, 0});
    }
}

void CpuidPolicy::derive_masks() {
    const CpuidResult &one = leaf1(), &seven = leaf7(), &ext = extended(1);
    const auto add = [](u64& mask, bool present, u64 bits) {
        if (present) mask |= bits;
    };
    u64& cr = cr4_mask_;
    // PCE has no effect without counters but is a bit of every processor that has RDPMC at all.
    cr = cr4::tsd | cr4::pce;
    add(cr, (one.edx & leaf1_edx::vme) != 0, cr4::vme | cr4::pvi);
    add(cr, (one.edx & leaf1_edx::de) != 0, cr4::de);
    add(cr, (one.edx & leaf1_edx::pse) != 0, cr4::pse);
    add(cr, (one.edx & leaf1_edx::pae) != 0, cr4::pae);
    add(cr, (one.edx & leaf1_edx::mce) != 0, cr4::mce);
    add(cr, (one.edx & leaf1_edx::pge) != 0, cr4::pge);
    add(cr, (one.edx & leaf1_edx::fxsr) != 0, cr4::osfxsr);
    add(cr, (one.edx & leaf1_edx::sse) != 0, cr4::osxmmexcpt);
    add(cr, (one.ecx & leaf1_ecx::pcid) != 0, cr4::pcide);
    add(cr, (one.ecx & leaf1_ecx::xsave) != 0, cr4::osxsave);
    add(cr, (seven.ebx & leaf7_ebx::fsgsbase) != 0, cr4::fsgsbase);
    add(cr, (seven.ebx & leaf7_ebx::smep) != 0, cr4::smep);
    add(cr, (seven.ebx & leaf7_ebx::smap) != 0, cr4::smap);
    add(cr, (seven.ecx & leaf7_ecx::umip) != 0, cr4::umip);
    add(cr, (seven.ecx & leaf7_ecx::la57) != 0, cr4::la57);
    add(efer_mask_, (ext.edx & ext1_edx::syscall) != 0, efer::sce);
    add(efer_mask_, (ext.edx & ext1_edx::long_mode) != 0, efer::lme | efer::lma);
    add(efer_mask_, (ext.edx & ext1_edx::nx) != 0, efer::nxe);
    add(efer_mask_, (ext.edx & ext1_edx::ffxsr) != 0, efer::ffxsr);
}

CpuidResult CpuidPolicy::patched(const Entry& entry, const CpuidState& state) const {
    CpuidResult result = entry.result;
    switch (entry.patch) {
        case Patch::none: break;
        case Patch::leaf1:
            if ((state.cr4 & cr4::osxsave) != 0) result.ecx |= leaf1_ecx::osxsave;
            if (!state.apic_enabled) result.edx &= ~leaf1_edx::apic;
            break;
        case Patch::xsave: result.ebx = xsave_size(state.xcr0 & xcr0_mask_); break;
        case Patch::xsave_compact: result.ebx = compact_size(state.xcr0 & xcr0_mask_); break;
    }
    return result;
}

CpuidResult CpuidPolicy::lookup(u32 leaf, u32 subleaf, const CpuidState& state) const {
    const Slot* slot = nullptr;
    if (leaf <= max_basic_) {
        slot = &basic_[leaf];
    } else if (leaf >= extended_base && leaf <= max_extended_) {
        slot = &extended_[leaf - extended_base];
    } else if (parameters_.hypervisor_leaf && (leaf >> 16) == (hypervisor_base >> 16)) {
        if (leaf != hypervisor_base) return {};
        return {hypervisor_base, hypervisor_ebx, hypervisor_ecx, hypervisor_edx};
    } else if (vendor_ == CpuVendor::intel) {
        // Beyond either maximum an Intel processor repeats the highest basic leaf.
        leaf = max_basic_;
        slot = &basic_[leaf];
    } else {
        return {};
    }
    if (!slot->subleaves) subleaf = 0;
    if (subleaf < slot->count) return patched(entries_[slot->first + subleaf], state);
    // Levels of topology that do not exist still tell the level asked for and the ID.
    if ((leaf == 0xB || leaf == 0x1F) && slot->count != 0) return {0, 0, subleaf & 0xFF, parameters_.vcpu};
    return {};
}

}  // namespace bulkhead
