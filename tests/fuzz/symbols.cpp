// The table of function names: a malformed one knows nothing, a good one stays within itself.
#include "kernel/bootinfo/elf_symbols.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    u64 wanted[8];
    for (u64& address : wanted) address = in.number();
    const Bytes bytes = in.rest();
    const SymbolTable table(bytes);
    MUST(u64{table.count()} * 8 <= bytes.size());
    for (const u64 address : wanted) {
        const auto symbol = table.find(HostVirtual(address));
        if (!symbol) continue;
        const auto* start = reinterpret_cast<const char*>(bytes.data());
        MUST(symbol->name.data() >= start);
        MUST(symbol->name.data() + symbol->name.size() <= start + bytes.size());
        MUST(symbol->offset <= 1 * mib);
    }
}
