#include "drivers/tsc.hpp"

#include <algorithm>
#include <optional>

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"

namespace bulkhead::drivers {
namespace {

constexpr u64 pm_timer_hz = 3'579'545;  // ACPI Specification 6.5, 4.8.2.1
constexpr u64 pit_hz = 1'193'182;
constexpr u64 milliseconds = 4;
constexpr u32 max_polls = 1'000'000;  // of a port: about a second on a real machine
constexpr unsigned readings_per_point = 8;
constexpr usize samples_wanted = 3;
constexpr unsigned max_samples = 16;
constexpr u64 lowest_hz = 20'000'000, highest_hz = 20'000'000'000;

// A counter of known rate that the TSC is compared with.
struct Reference {
    u64 hz;
    u32 mask;  // of the counter's bits
    Port port;
    // Counts up, whatever the hardware does. `before` and `after`: the TSC around the moment of reading.
    u32 (*read)(Port port, u64& before, u64& after);
};

u32 read_pm_timer(Port port, u64& before, u64& after) {
    before = cpu::read_tsc_ordered();
    const u32 value = injected(Fault::pm_timer_silent) ? 0 : cpu::in32(port);
    after = cpu::read_tsc_ordered();
    return value;
}

constexpr Port pit_channel2{0x42}, pit_command{0x43}, pit_gate_port{0x61};

u32 read_pit(Port, u64& before, u64& after) {
    constexpr u8 latch_channel2 = 0x80;
    before = cpu::read_tsc_ordered();
    cpu::out8(pit_command, latch_channel2);
    after = cpu::read_tsc_ordered();
    const u32 low = cpu::in8(pit_channel2);
    return 0u - (low | u32{cpu::in8(pit_channel2)} << 8);  // it counts down
}

struct Point {
    u32 count = 0;
    u64 tsc = 0;
    u64 uncertainty = ~u64{0};  // ticks of the TSC
};

// The best of several readings: an SMI, or an emulator whose host is busy, may come between any two
// instructions.
[[nodiscard]] Point read_point(const Reference& reference) {
    Point best;
    for (unsigned i = 0; i < readings_per_point; ++i) {
        u64 before, after;
        const u32 count = reference.read(reference.port, before, after);
        if (after - before < best.uncertainty)
            best = {.count = count, .tsc = before + (after - before) / 2, .uncertainty = after - before};
    }
    return best;
}

struct Sample {
    u64 hz;
    u64 uncertainty;  // relative, in millionths
};

// Ticks of the TSC a second; nothing if the reference does not run.
[[nodiscard]] std::optional<Sample> measure_once(const Reference& reference) {
    const auto wanted = static_cast<u32>(reference.hz * milliseconds / 1000);
    const Point start = read_point(reference);
    for (u32 polls = 0;; ++polls) {
        if (polls == max_polls) return std::nullopt;
        u64 before, after;
        if (((reference.read(reference.port, before, after) - start.count) & reference.mask) >= wanted) break;
    }
    const Point end = read_point(reference);
    const u32 counted = (end.count - start.count) & reference.mask;
    const u64 ticks = end.tsc - start.tsc;
    if (counted == 0 || ticks == 0 || ticks > highest_hz) return std::nullopt;
    return Sample{.hz = scale(ticks, reference.hz, counted),
                  .uncertainty = scale(start.uncertainty + end.uncertainty, 1'000'000, ticks)};
}

// The median of the first measurements that are good enough, if they agree to 1/128 and are plausible.
[[nodiscard]] std::optional<u64> measure(const Reference& reference) {
    u64 samples[samples_wanted];
    usize count = 0;
    for (unsigned i = 0; i < max_samples && count < samples_wanted; ++i) {
        const auto sample = measure_once(reference);
        if (!sample) return std::nullopt;
        // On a machine that is disturbed all the time the demands fall.
        const u64 tolerated = 1'000 + 1'000 * i;
        if (sample->uncertainty > tolerated) continue;
        samples[count] = injected(Fault::tsc_unstable) ? sample->hz / 8 * (8 + count) : sample->hz;
        ++count;
    }
    if (count < samples_wanted) return std::nullopt;
    std::sort(std::begin(samples), std::end(samples));
    const u64 median = samples[samples_wanted / 2];
    if (samples[samples_wanted - 1] - samples[0] > median / 128) return std::nullopt;
    if (median < lowest_hz || median > highest_hz) return std::nullopt;
    return median;
}

[[nodiscard]] std::optional<u64> measure_by_pm_timer(const AcpiAddress& pm_timer) {
    if (pm_timer.space != AcpiAddress::Space::io || pm_timer.address > 0xFFFC) return std::nullopt;
    constexpr u32 counter_mask = 0xFF'FFFF;  // 24 bits are there in any case
    return measure({.hz = pm_timer_hz,
                    .mask = counter_mask,
                    .port = Port(static_cast<u16>(pm_timer.address)),
                    .read = read_pm_timer});
}

[[nodiscard]] std::optional<u64> measure_by_pit() {
    constexpr u8 gate = bit<u8>(0), speaker = bit<u8>(1);
    constexpr u8 channel2_rate_generator = 0xB4;  // both bytes, mode 2: from 0 (65536) downwards, for ever
    const u8 saved = cpu::in8(pit_gate_port);
    cpu::out8(pit_gate_port, static_cast<u8>((saved & ~speaker) | gate));
    cpu::out8(pit_command, channel2_rate_generator);
    cpu::out8(pit_channel2, 0);
    cpu::out8(pit_channel2, 0);
    const auto hz = measure({.hz = pit_hz, .mask = 0xFFFF, .port = pit_channel2, .read = read_pit});
    cpu::out8(pit_gate_port, saved);
    return hz;
}

// Intel SDM Vol. 2A, CPUID leaf 15h: TSC = crystal * EBX / EAX.
[[nodiscard]] std::optional<u64> frequency_by_cpuid() {
    if (cpu::cpuid(0).eax < 0x15) return std::nullopt;
    const CpuidResult leaf = cpu::cpuid(0x15);
    if (leaf.eax == 0 || leaf.ebx == 0 || leaf.ecx == 0) return std::nullopt;
    const u128 hz = static_cast<u128>(leaf.ecx) * leaf.ebx / leaf.eax;
    if (hz < lowest_hz || hz > highest_hz) return std::nullopt;
    return static_cast<u64>(hz);
}

}  // namespace

Result<TscCalibration> calibrate_tsc(const AcpiAddress& pm_timer) {
    TscCalibration result;
    if (cpu::cpuid(0x8000'0000).eax >= 0x8000'0007)
        result.invariant = has_bit(cpu::cpuid(0x8000'0007).edx, 8);

    std::optional<u64> measured = measure_by_pm_timer(pm_timer);
    result.source = "PM timer";
    if (!measured) {
        measured = measure_by_pit();
        result.source = "PIT";
    }
    const auto stated = frequency_by_cpuid();
    if (!measured) {
        if (!stated)
            return fail(
                "HV-E007: the TSC's frequency cannot be measured: neither PM timer nor PIT gives "
                "steady time; check the firmware setup");
        result.hz = *stated;
        result.source = "CPUID 15h";
        return result;
    }
    result.hz = *measured;
    if (stated) {
        const u64 difference = *stated > *measured ? *stated - *measured : *measured - *stated;
        if (difference <= *measured / 100) {
            result.hz = *stated;
            result.source = "CPUID 15h";
        }
    }
    return result;
}

}  // namespace bulkhead::drivers
