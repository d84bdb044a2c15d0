#include "kernel/bootinfo/elf_symbols.hpp"

namespace bulkhead {
namespace {

// Beyond this an address belongs to no function, whatever comes last in the table.
constexpr u64 longest_function = 1 * mib;

}  // namespace

SymbolTable::SymbolTable(Bytes table) {
    const auto found = read_at<u32>(table, 0), count = read_at<u32>(table, 4);
    const auto base = read_at<u64>(table, 8);
    if (!found || !count || !base || *found != magic) return;
    if (!range_within(header_size, *count * entry_size, table.size())) return;
    table_ = table;
    count_ = *count;
    base_ = *base;
}

u32 SymbolTable::word_at(u64 offset) const {
    return read_at<u32>(table_, offset).value_or(0);
}

std::optional<SymbolTable::Symbol> SymbolTable::find(HostVirtual address) const {
    if (count_ == 0 || address.raw() < base_) return std::nullopt;
    const u64 offset = address.raw() - base_;
    // The first entry above the address; the one before it is the answer.
    u32 low = 0, high = count_;
    while (low < high) {
        const u32 middle = low + (high - low) / 2;
        if (word_at(header_size + middle * entry_size) <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) return std::nullopt;
    const u64 entry = header_size + (low - 1) * entry_size;
    const u64 within = offset - word_at(entry);
    const u32 name = word_at(entry + 4);
    if (within > longest_function || name >= table_.size()) return std::nullopt;
    const auto* text = reinterpret_cast<const char*>(table_.data());
    usize end = name;
    while (end < table_.size() && text[end] != 0) ++end;
    return Symbol{.name = {text + name, end - name}, .offset = within};
}

}  // namespace bulkhead
