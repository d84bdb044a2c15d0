#include "kernel/bootinfo/elf_symbols.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "fake_physical.hpp"

using namespace bulkhead;

namespace {

constexpr u64 base = 0xFFFF'FFFF'8020'0000;

ByteWriter sample() {
    ByteWriter t;
    t.put<u32>(SymbolTable::magic).put<u32>(3).put<u64>(base);
    t.put<u32>(0).put<u32>(40).put<u32>(0x10).put<u32>(46).put<u32>(0x200).put<u32>(51);
    t.text("start").put<u8>(0).text("main").put<u8>(0).text("halt").put<u8>(0);
    return t;
}

}  // namespace

TEST_CASE("an address belongs to the last symbol at or below it") {
    const ByteWriter bytes = sample();
    const SymbolTable table(bytes.bytes);
    CHECK(table.count() == 3);
    CHECK(table.find(HostVirtual(base))->name == "start");
    CHECK(table.find(HostVirtual(base + 0xF))->offset == 0xF);
    CHECK(table.find(HostVirtual(base + 0x10))->name == "main");
    CHECK(table.find(HostVirtual(base + 0x1FF))->name == "main");
    CHECK(table.find(HostVirtual(base + 0x234))->name == "halt");
    CHECK(table.find(HostVirtual(base + 0x234))->offset == 0x34);
    CHECK_FALSE(table.find(HostVirtual(base - 1)));
    CHECK_FALSE(table.find(HostVirtual(base + 4 * mib)));
    CHECK_FALSE(table.find(HostVirtual(~u64{0})));
    CHECK_FALSE(SymbolTable().find(HostVirtual(base)));
}

TEST_CASE("a malformed table knows nothing or stays within itself") {
    ByteWriter bytes = sample();
    bytes.set<u32>(4, 0xFFFF'FFFF);
    CHECK(SymbolTable(bytes.bytes).count() == 0);
    bytes.set<u32>(0, 0);
    CHECK(SymbolTable(bytes.bytes).count() == 0);
    CHECK(SymbolTable(Bytes{}).count() == 0);
    std::mt19937 random(8);
    for (int round = 0; round < 5000; ++round) {
        ByteWriter changed = sample();
        changed.bytes[random() % changed.bytes.size()] = static_cast<u8>(random());
        changed.bytes.shrink_to_fit();
        const SymbolTable table(changed.bytes);
        const auto symbol = table.find(HostVirtual(base + random() % 0x300));
        if (symbol) (void)std::string(symbol->name);
    }
}

TEST_CASE("the script makes a table of nm's output that the lookup understands") {
    // The script lies in the tree that this file lies in.
    std::string root = __FILE__;
    root.erase(root.find("tests/unit/"));
    const std::string out = std::filesystem::temp_directory_path() / ("symbols." + std::to_string(getpid()));
    const std::string command =
        "printf '%s\\n' "
        "'ffffffff80200000 T start' "
        "'ffffffff80200010 t bulkhead::(anonymous namespace)::run(bulkhead::Vcpu&, unsigned long)' "
        "'ffffffff80200040 W bulkhead::Result<void>::operator()(int) const' "
        "'ffffffff80200040 t a' "
        "'ffffffff80300000 D data' "
        "'                 U missing' | python3 " +
        root + "scripts/make_symbols.py - " + out;
    REQUIRE(std::system(command.c_str()) == 0);
    std::ifstream file(out, std::ios::binary);
    const std::vector<u8> bytes((std::istreambuf_iterator<char>(file)), {});
    std::remove(out.c_str());
    const SymbolTable table(bytes);
    CHECK(table.count() == 3);
    CHECK(table.find(HostVirtual(base + 5))->name == "start");
    CHECK(table.find(HostVirtual(base + 0x11))->name == "run");
    CHECK(table.find(HostVirtual(base + 0x40))->name == "a");  // the shorter of two names
}
