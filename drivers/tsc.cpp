#include "drivers/tsc.hpp"

#include <algorithm>
#include <optional>

#include "arch/x86/cpu/intrinsics.hpp"

namespace bulkhead {
namespace {

constexpr u64 pm_timer_hz = 3'579'545;  // ACPI Specification 6.5, 4.8.2.1
constexpr u64 pit_hz = 1'193'182;
constexpr u64 milliseconds = 3;
constexpr u32 max_polls = 1'000'000;  // of a port: about a second on a real machine
constexpr usize samples_per_round = 3;
constexpr unsigned rounds = 4;
constexpr u64 lowest_hz = 20'000'000, highest_hz = 20'000'000'000;

// Each returns ticks of the TSC a second, or nothing if the reference does not run.
[[nodiscard]] std::optional<u64> measure_by_pm_timer(Port port) {
    constexpr u32 counter_mask = 0xFF'FFFF;  // 24 bits are there in any case
    constexpr u32 wanted = pm_timer_hz * milliseconds / 1000;

    // Both ends of the measurement are at a change of the counter.
    const u32 before = cpu::in32(port) & counter_mask;
    u32 first = before;
    u32 polls = 0;
    while (first == before) {
        if (++polls == max_polls) return std::nullopt;
        first = cpu::in32(port) & counter_mask;
    }
    const u64 start = cpu::read_tsc_ordered();
    u32 elapsed = 0;
    while (elapsed < wanted) {
        if (++polls == max_polls) return std::nullopt;
        elapsed = ((cpu::in32(port) & counter_mask) - first) & counter_mask;
    }
    const u64 end = cpu::read_tsc_ordered();
    return scale(end - start, pm_timer_hz, elapsed);
}

[[nodiscard]] std::optional<u64> measure_by_pit() {
    constexpr Port channel2{0x42}, command{0x43}, control{0x61};
    constexpr u16 count = pit_hz * milliseconds / 1000;
    constexpr u8 gate = bit<u8>(0), speaker = bit<u8>(1), output = bit<u8>(5);

    const u8 saved = cpu::in8(control);
    cpu::out8(control, static_cast<u8>((saved & ~speaker) | gate));
    cpu::out8(command, 0xB0);  // channel 2, both bytes, mode 0: output rises at the end of the count
    cpu::out8(channel2, static_cast<u8>(count));
    cpu::out8(channel2, static_cast<u8>(count >> 8));
    const u64 start = cpu::read_tsc_ordered();
    u32 polls = 0;
    while ((cpu::in8(control) & output) == 0 && polls < max_polls) ++polls;
    const u64 end = cpu::read_tsc_ordered();
    cpu::out8(control, saved);
    // An output that is high at once is stuck, or no PIT at all.
    if (polls == max_polls || polls < 2) return std::nullopt;
    return scale(end - start, pit_hz, count);
}

// The median of one round, if its measurements agree to 1/64 and are plausible.
template <class Measure>
[[nodiscard]] std::optional<u64> measure(Measure&& once) {
    for (unsigned round = 0; round < rounds; ++round) {
        u64 samples[samples_per_round];
        for (u64& sample : samples) {
            const auto value = once();
            if (!value) return std::nullopt;
            sample = *value;
        }
        std::sort(std::begin(samples), std::end(samples));
        const u64 median = samples[samples_per_round / 2];
        if (samples[samples_per_round - 1] - samples[0] <= median / 64 && median >= lowest_hz &&
            median <= highest_hz)
            return median;
    }
    return std::nullopt;
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

    std::optional<u64> measured;
    if (pm_timer.space == AcpiAddress::Space::io && pm_timer.address <= 0xFFFC) {
        measured = measure([&] { return measure_by_pm_timer(Port(static_cast<u16>(pm_timer.address))); });
        result.source = "PM timer";
    }
    if (!measured) {
        measured = measure(measure_by_pit);
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

}  // namespace bulkhead
