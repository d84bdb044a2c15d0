// The composition root: what happens between the boot loader's jump and the first VM, in order.

#include <algorithm>

#include "arch/x86/cpu/control_registers.hpp"
#include "arch/x86/cpu/descriptor_tables.hpp"
#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/speculation.hpp"
#include "boot/host.hpp"
#include "boot/hypervisor.hpp"
#include "boot/kernel_space.hpp"
#include "boot/version.hpp"
#include "drivers/framebuffer_console.hpp"
#include "drivers/pic_8259.hpp"
#include "drivers/rtc.hpp"
#include "drivers/vectors.hpp"
#include "drivers/vga_text.hpp"
#include "kernel/base/deferred.hpp"
#include "kernel/bootinfo/boot_errors.hpp"
#include "kernel/bootinfo/elf_symbols.hpp"
#include "kernel/bootinfo/multiboot1.hpp"
#include "kernel/bootinfo/multiboot2.hpp"

namespace bulkhead {
using namespace drivers;

namespace {

extern "C" const u8 symbol_table_start[], symbol_table_end[];

constexpr u64 log_size = 64 * kib;
constexpr u64 least_memory_for_vms = 16 * mib;

// Constructed at run time, lest their initial values fill the image file.
Deferred<BootInfo> boot_info;
Deferred<HostOptions> options;
Deferred<AcpiInfo> acpi;
Deferred<Logger> logger;
Deferred<LogRing> log_ring;
Deferred<VgaText> vga_text;
Deferred<FramebufferConsole> framebuffer_console;
Deferred<Host> the_host;

alignas(64) u8 log_storage[log_size];
UnitAllocator unit_allocator;
SymbolTable symbols;
TscClock tsc_clock;
HostMachine machine;
CoreInterruptFlag interrupt_flag;
Uart16550 uart;
u8 uart_queue[16 * kib];
Sink* screen = nullptr;
LocalApic local_apic;
FixedVector<IoApic, 16> io_apics;
MachinePower power;

// ---- What a panic needs
// --------------------------------------------------------------------------------------

// Straight to the devices, past the log and its lock.
class PanicOutput final : public Sink {
  public:
    void write(std::string_view text) override {
        uart.write(text);
        if (uart.stuck()) uart.flush();
        if (vga_text.ready()) vga_text->write(text);
        if (framebuffer_console.ready()) framebuffer_console->write(text);
    }
};
PanicOutput panic_output;

std::string_view symbolize(u64 address, u64& offset) {
    const auto symbol = symbols.find(HostVirtual(address));
    if (!symbol) return {};
    offset = symbol->offset;
    return symbol->name;
}

void reset_machine() {
    uart.flush();
    power.reset();
}

// ---- The steps
// ---------------------------------------------------------------------------------------------

void start_log() {
    log_ring.emplace(MutableBytes(log_storage));
    logger.emplace(*log_ring, tsc_clock, interrupt_flag);
    symbols =
        SymbolTable(Bytes(symbol_table_start, static_cast<usize>(symbol_table_end - symbol_table_start)));
    panic_settings.output = &panic_output;
    panic_settings.symbolize = symbolize;
}

void open_serial_console() {
    static constexpr Port ports[] = {Port(0x3F8), Port(0x2F8), Port(0x3E8), Port(0x2E8)};
    if (options->no_console) return;
    const u8 number = options->console.value_or(0);
    if (number >= std::size(ports)) return;
    uart.set_queue(uart_queue);
    if (uart.initialize(ports[number], options->baud)) {
        (void)logger->add_sink(uart, options->log_level);
    } else {
        tell_of_missing_console(*logger, *options);
    }
}

void show_log_on(Sink& sink) {
    screen = &sink;
    (void)logger->add_sink(sink, options->log_level);
}

void open_screen() {
    const Framebuffer& framebuffer = boot_info->framebuffer;
    if (!options->screen) return;
    // A boot loader that says nothing of the screen is an old one on a BIOS machine, in text mode.
    const bool text = framebuffer.kind == Framebuffer::Kind::text;
    const bool unknown =
        framebuffer.kind == Framebuffer::Kind::none && boot_info->protocol == BootInfo::Protocol::multiboot1;
    if (text || unknown) {
        if (text && (framebuffer.address != vga_text_memory || framebuffer.width != 80)) return;
        const u32 lines = text ? std::min<u32>(framebuffer.height, 50) : 25;
        if (auto memory = map_device(vga_text_memory, 80ul * lines * 2))
            show_log_on(vga_text.emplace(*memory, 80u, lines));
    } else if (FramebufferConsole::supports(framebuffer)) {
        auto memory = map_device(framebuffer.address, FramebufferConsole::bytes(framebuffer),
                                 MemoryType::write_combining);
        if (memory) show_log_on(framebuffer_console.emplace(*memory, framebuffer));
    }
}

// Nothing can go on: one line that says why, on whatever there is to say it.
[[noreturn]] void refuse(const Error& error) {
    if (!uart.present() && !options->no_console) open_serial_console();
    if (!vga_text.ready() && !framebuffer_console.ready()) open_screen();
    logger->error("{}", error.text.view());
    logger->error("Bulkhead {} is halted.", version);
    uart.flush();
    cpu::stop();
}

void require(const Result<>& result) {
    if (!result) refuse(result.error());
}

[[nodiscard]] Result<> read_boot_information(u32 magic, HostPhysical information) {
    PhysicalWindow window(0);
    Result<> result;
    switch (magic) {
        case multiboot1::loader_magic: result = multiboot1::parse(window, information, *boot_info); break;
        case multiboot2::loader_magic: result = multiboot2::parse(window, information, *boot_info); break;
        default: result = fail(boot_error::bad_magic, magic); break;
    }
    window.close();
    return result;
}

// All usable memory but what is in use: below 1 MiB, the image, modules, the loader's structure.
[[nodiscard]] Result<> claim_memory() {
    for (const MemoryRange& range : boot_info->memory.ranges()) {
        if (range.kind != MemoryKind::usable) continue;
        if (auto r = unit_allocator.add_usable(range.start, range.length); !r) return r;
    }
    if (auto r = unit_allocator.reserve(HostPhysical(0), mib); !r) return r;
    if (auto r = unit_allocator.reserve(image_begin(), image_finish() - image_begin()); !r) return r;
    for (const BootModule& module : boot_info->modules) {
        if (auto r = unit_allocator.reserve(module.start, module.size()); !r) return r;
    }
    const u64 have = unit_allocator.free_units() * UnitAllocator::unit_size;
    if (have < least_memory_for_vms)
        return fail(
            "HV-E004: too little RAM: {} MiB are free for VMs, at least {} MiB are needed; add memory or "
            "use fewer or smaller modules",
            have / mib, least_memory_for_vms / mib);
    return {};
}

HostVirtual map_or_null(HostPhysical start, u64 length) {
    auto mapped = map_device(start, length);
    return mapped ? *mapped : HostVirtual(0);
}

#ifdef BULKHEAD_FAULT_INJECTION
// Shows ACPI tables otherwise than they are.
class AcpiWindow final : public PhysicalReader {
  public:
    explicit AcpiWindow(unsigned number) : window_(number) {}
    std::optional<Bytes> read(HostPhysical start, u64 length) override {
        constexpr u64 most_low_memory = mib;
        if (injected(Fault::no_rsdp) && start.raw() < most_low_memory) return std::nullopt;
        const auto bytes = window_.read(start, length);
        if (!injected(Fault::bad_madt) || !bytes || length > sizeof copy_ || length < 5 ||
            std::memcmp(bytes->data(), "APIC", 4) != 0)
            return bytes;
        std::memcpy(copy_, bytes->data(), length);
        copy_[length - 1] ^= 1;
        return Bytes(copy_, length);
    }
    void close() { window_.close(); }

  private:
    PhysicalWindow window_;
    static inline u8 copy_[1024];
};
#else
using AcpiWindow = PhysicalWindow;
#endif

void read_acpi_tables() {
    if (options->acpi) {
        AcpiWindow window(0);
        if (auto read = read_acpi(window, injected(Fault::no_rsdp) ? Bytes() : Bytes(boot_info->rsdp), *acpi);
            !read)
            logger->error("{}", read.error().text.view());
        window.close();
        for (const auto& note : acpi->notes) logger->warning("{}", note.view());
    } else {
        logger->warning("ACPI is off by option; going on with 1 CPU");
    }
    power.prepare(*acpi, map_or_null);
}

// Acknowledges what nobody handles; a spurious interrupt is not in service and wants no acknowledgement.
void on_spurious_interrupt(void*) {
    count_spurious_interrupt();
}

void on_unexpected_interrupt(Vector vector) {
    if (local_apic.in_service(vector)) local_apic.end_of_interrupt();
}

void on_apic_error(void*) {
    (void)local_apic.take_errors();  // the count of interrupts tells that there were any
    local_apic.end_of_interrupt();
}

[[nodiscard]] Result<> start_interrupt_controllers(u64 tsc_hz) {
    if (acpi->has_legacy_pic) mask_legacy_pics(host_vector::legacy_pic);

    auto page = map_device(acpi->local_apic, page_size);
    if (!page) return std::unexpected(page.error());
    if (auto r = local_apic.initialize(*page); !r) return r;
    set_unexpected_interrupt_handler(on_unexpected_interrupt);
    set_interrupt_handler(host_vector::spurious, on_spurious_interrupt, nullptr);
    set_interrupt_handler(host_vector::apic_error, on_apic_error, nullptr);
    if (auto r = local_apic.enable_on_this_core(); !r) return r;
    if (auto r = local_apic.calibrate_timer(tsc_hz); !r) return r;
    if (local_apic.deadline_is_silent())
        logger->warning(
            "HV-E027: the local APIC's TSC-deadline timer does not interrupt; its one-shot mode serves "
            "instead");
    core_data(0).apic_id = local_apic.id();
    for (const AcpiProcessor& processor : acpi->processors) {
        if (processor.apic_id == core_data(0).apic_id) core_data(0).acpi_id = processor.uid;
    }

    for (const AcpiIoApic& io_apic : acpi->io_apics) {
        auto registers = map_device(io_apic.address, 0x20);
        if (!registers || !io_apics.push_back(IoApic(*registers, io_apic.gsi_base)))
            logger->warning("HV-E025: the I/O APIC at {} cannot be used", io_apic.address);
    }
    return {};
}

void log_option_complaints() {
    for (const auto& complaint : options->complaints) logger->warning("{}", complaint.view());
    if (options->complaint_count > options->complaints.size())
        logger->warning("{} more host options were not understood",
                        options->complaint_count - options->complaints.size());
}

}  // namespace

extern "C" [[noreturn]] void boot_main(u32 magic, u32 information) {
    const u64 entered = cpu::read_tsc();
    load_descriptor_tables(0);
    start_log();
    boot_info.emplace();
    options.emplace();
    acpi.emplace();
    require(configure_core());
    require(enter_kernel_space());

    const auto information_read = read_boot_information(magic, HostPhysical(information));
    *options = parse_host_options(boot_info->command_line);
#ifdef BULKHEAD_FAULT_INJECTION
    injected_faults = options->faults;
#endif
    start_mitigations_on_this_core();
    if (options->on_panic == HostOptions::OnPanic::reset) panic_settings.reset = reset_machine;
    open_serial_console();
    open_screen();
    logger->info("Bulkhead {}", version);
    if (uart.stuck())
        logger->error(
            "HV-E005: the console's UART takes no characters; "
            "the log goes to memory and the screen until it does, check the terminal's flow control");
    log_option_complaints();
    require(information_read);
    require(check(*boot_info, image_begin(), image_finish()));
    require(claim_memory());
    read_acpi_tables();

    auto tsc = calibrate_tsc(acpi->pm_timer);
    if (!tsc) refuse(tsc.error());
    tsc_clock.start(tsc->hz);
    uart.set_tsc_hz(tsc->hz);
    logger->info("firmware and boot loader took {} us", scale(entered, 1'000'000, tsc->hz));
    if (!tsc->invariant)
        logger->warning(
            "HV-E007: the TSC is not declared invariant; time may drift with power states, turn them off in "
            "the firmware setup");
    const auto wall_clock = read_rtc();
    if (!wall_clock) logger->warning("HV-E026: the real-time clock shows no date; VMs start in 2000");
    constexpr u64 year_2000 = 946'684'800;
    machine.start(tsc->hz, wall_clock.value_or(year_2000), cpu::read_tsc());

    require(start_interrupt_controllers(tsc->hz));

    Host& host = the_host.emplace(Host{.boot = *boot_info,
                                       .options = *options,
                                       .acpi = *acpi,
                                       .memory = unit_allocator,
                                       .log = *logger,
                                       .interrupts = interrupt_flag,
                                       .console = uart,
                                       .local_apic = local_apic,
                                       .io_apics = io_apics,
                                       .power = power,
                                       .machine = machine,
                                       .tsc = *tsc,
                                       .screen = screen,
                                       .reset_machine = reset_machine});
    log_machine(host);
    run_hypervisor(host);
}

}  // namespace bulkhead
