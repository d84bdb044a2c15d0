#include "arch/x86/cpu/control_registers.hpp"
#include "arch/x86/cpu/descriptor_tables.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "drivers/uart_16550.hpp"
#include "version.hpp"

namespace bulkhead {
namespace {

Uart16550 uart;

}  // namespace

extern "C" [[noreturn]] void boot_main(u32 magic, u32 information) {
    load_descriptor_tables(0);
    if (uart.initialize(Port(0x3F8), 115200)) panic_settings.output = &uart;
    if (auto configured = configure_core(); !configured) panic_with(configured.error().text);
    print(uart, "Bulkhead {} magic {:#x} info {:#x}\n", version, magic, information);
    cpu::stop();
}

}  // namespace bulkhead
