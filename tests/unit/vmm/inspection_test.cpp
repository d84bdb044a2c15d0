// The operator's views of a VM.
#include "vmm/inspection.hpp"

#include "vm_bench.hpp"

using namespace bulkhead;
using Kind = Management::AddressKind;

namespace {

Result<usize> read(const VmBench& bench, Kind kind, u64 address, MutableBytes out) {
    return read_guest_memory(bench.vm->memory(), bench.vcpu(), kind, address, out);
}

}  // namespace

TEST_CASE("registers are shown as of the last exit") {
    VmBench bench;
    bench.enter_long_mode();
    bench.cpu().gprs[0] = 0x1111;
    bench.cpu().gprs[15] = 0x2222;
    bench.cpu().write(Register::cr2, 0x3333);
    bench.cpu().set_debug_register(3, 0x4444);
    bench.cpu().set_xcr0(7);
    bench.cpu().set_gdtr({.base = 0x5555, .limit = 0x66});
    bench.put(VmBench::code, {0x0F, 0xA2});
    bench.exit(ExitReason::cpuid, 2);
    VcpuRegisters out;
    read_registers(bench.vcpu(), out);
    CHECK(out.gprs[15] == 0x2222);
    CHECK(out.rip == VmBench::code + 2);
    CHECK(out.cr2 == 0x3333);
    CHECK(out.cr3 == 0x2000);
    CHECK(out.cr4 == cr4::pae);
    CHECK((out.efer & efer::lma) != 0);
    CHECK(out.debug[3] == 0x4444);
    CHECK(out.dr6 == 0xFFFF0FF0);
    CHECK(out.xcr0 == 7);
    CHECK(out.gdtr.base == 0x5555);
    CHECK(out.gdtr.limit == 0x66);
    CHECK(out.segments[1].selector == 0x10);
    // The host interrupt that ended the turn came last.
    CHECK(out.last_exit == name_of(ExitReason::external_interrupt));
}

TEST_CASE("memory is read by linear address through the page tables, leaving no trace in them") {
    VmBench bench;
    // Two pages side by side that are far apart in memory; user pages, under SMAP; no accessed flags.
    bench.put64(0x2000, 0x3007);
    bench.put64(0x3000, 0x4007);
    bench.put64(0x4000, 0x5007);
    bench.put64(0x5000 + 8 * 0x10, 0x20'0005);
    bench.put64(0x5000 + 8 * 0x11, 0x30'0007);
    bench.put64(0x5000 + 8 * 0x13, 0xFEC0'0007);
    FakeBackend& cpu = bench.cpu();
    cpu.write(Register::cr4, cr4::pae | cr4::smap);
    cpu.write(Register::cr3, 0x2000);
    cpu.write(Register::efer, efer::lme | efer::nxe);
    cpu.write(Register::cr0, cr0::pe | cr0::pg | cr0::et);
    bench.put(0x20'0FFE, {1, 2});
    bench.put(0x30'0000, {3, 4, 5});

    u8 bytes[4] = {};
    REQUIRE(read(bench, Kind::linear, 0x10FFE, bytes));
    CHECK(std::vector<u8>(bytes, bytes + 4) == std::vector<u8>{1, 2, 3, 4});
    for (const u64 entry : {0x2000, 0x3000, 0x4000, 0x5080, 0x5088}) {
        CHECK((bench.byte_at(entry) & 0x60) == 0);
    }
    // To the end of what is mapped.
    std::vector<u8> much(3 * page_size);
    const auto some = read(bench, Kind::linear, 0x11002, much);
    REQUIRE(some);
    CHECK(*some == page_size - 2);
    CHECK(much[0] == 5);
    const auto none = read(bench, Kind::linear, 0x12000, bytes);
    REQUIRE_FALSE(none);
    CHECK(none.error().text.view() == "0x12000 is not mapped by the vCPU's page tables");
    const auto device = read(bench, Kind::linear, 0x13010, bytes);
    REQUIRE_FALSE(device);
    CHECK(device.error().text.view() == "0x13010 is 0xfec00010 in the VM, which is not RAM");
    const auto strange = read(bench, Kind::linear, u64{1} << 47, bytes);
    REQUIRE_FALSE(strange);
    CHECK(strange.error().text.view() == "0x800000000000 is not canonical");
    // From the last canonical byte below the hole it is one byte at most; nothing is mapped there.
    CHECK_FALSE(read(bench, Kind::linear, low_mask(47), bytes));
    CHECK_FALSE(read(bench, Kind::linear, ~u64{0}, bytes));
}

TEST_CASE("memory is read by physical address, and as it is without paging") {
    VmBench bench;
    bench.put(0x7000, {9, 8, 7});
    u8 bytes[3] = {};
    REQUIRE(read(bench, Kind::physical, 0x7000, bytes));
    CHECK(bytes[2] == 7);
    REQUIRE(read(bench, Kind::linear, 0x7001, bytes));
    CHECK(bytes[0] == 8);
    CHECK_FALSE(read(bench, Kind::physical, 0xFEC0'0000, bytes));
    CHECK_FALSE(read(bench, Kind::linear, 0x1'0000'0000, bytes));
    // The last bytes of RAM.
    std::vector<u8> much(2 * page_size);
    const auto some = read(bench, Kind::physical, 8 * mib - 16 - page_size, much);
    REQUIRE(some);
    CHECK(*some == 16 + page_size);
    CHECK(read(bench, Kind::physical, 0x7000, {}).value_or(1) == 0);
}

TEST_CASE("the screen is what the guest wrote to text memory, with its cursor") {
    VmBench bench;
    bench.put(platform::vga_text + 2 * (2 * 80 + 3), {'H', 7, 'i', 7});
    const u16 place = 2 * 80 + 5;
    for (const auto& [index, value] : {std::pair{0x0E, place >> 8}, std::pair{0x0F, place & 0xFF}}) {
        bench.vm->port_write(Port(0x3D4), 1, static_cast<u32>(index), 0);
        bench.vm->port_write(Port(0x3D5), 1, static_cast<u32>(value), 0);
    }
    const auto screen = std::make_unique<ScreenText>();
    bench.vm->read_screen(*screen);
    CHECK(screen->columns == 80);
    CHECK(screen->rows == 25);
    CHECK(std::string_view(screen->characters[2], 80).substr(3, 2) == "Hi");
    CHECK(screen->cursor_visible);
    CHECK(screen->cursor_column == 5);
    CHECK(screen->cursor_row == 2);
}

TEST_CASE("keys reach the keyboard's port with its interrupt, all or none") {
    VmBench bench;
    const auto status = [&] { return bench.vm->port_read(Port(0x64), 1, 0); };
    CHECK((status() & 1) == 0);
    const u8 a[] = {0x1C, 0xF0, 0x1C};
    CHECK(bench.vm->press_keys(a));
    CHECK((status() & 1) == 1);
    // Set 2 comes translated to set 1.
    CHECK(bench.vm->port_read(Port(0x60), 1, 0) == 0x1E);
    CHECK(bench.vm->port_read(Port(0x60), 1, 0) == 0x9E);
    CHECK((status() & 1) == 0);
    const std::vector<u8> flood(60, 0x1C);
    CHECK(bench.vm->press_keys(flood));
    CHECK_FALSE(bench.vm->press_keys(flood));
}
