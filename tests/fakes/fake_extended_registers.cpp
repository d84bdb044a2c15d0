#include "tests/fakes/fake_extended_registers.hpp"

#include <cstring>

namespace bulkhead {
namespace {

FakeExtendedRegisters instance;
constexpr usize legacy_size = 512, file_size = 1088;

void note(const std::string& operation) {
    instance.operations.push_back(operation);
    if (instance.journal != nullptr) instance.journal->push_back(operation);
}

void keep(const void* area, usize size) {
    const auto* bytes = static_cast<const u8*>(area);
    instance.file.assign(bytes, bytes + size);
}

void give(void* area, usize size) {
    instance.file.resize(size);
    std::memcpy(area, instance.file.data(), size);
}

}  // namespace

FakeExtendedRegisters& fake_extended_registers() {
    return instance;
}
FakeExtendedRegisters& new_fake_extended_registers() {
    instance = {};
    return instance;
}

extern "C" {

void bulkhead_write_xcr0(u64 value) {
    instance.operations.push_back("xcr0 " + std::to_string(value));
    instance.xcr0 = value;
}
u64 bulkhead_read_xcr0() {
    return instance.xcr0;
}
void bulkhead_xsave(void* area, u64 mask) {
    note("xsave " + std::to_string(mask) + " under " + std::to_string(instance.xcr0));
    give(area, file_size);
}
void bulkhead_xrstor(const void* area, u64 mask) {
    note("xrstor " + std::to_string(mask) + " under " + std::to_string(instance.xcr0));
    keep(area, file_size);
}
void bulkhead_fxsave(void* area) {
    note("fxsave");
    give(area, legacy_size);
}
void bulkhead_fxrstor(const void* area) {
    note("fxrstor");
    keep(area, legacy_size);
}
u64 bulkhead_read_debug(u32 index) {
    return instance.debug[index];
}
void bulkhead_write_debug(u32 index, u64 value) {
    instance.debug[index] = value;
}
void bulkhead_write_tsc_aux(u64 value) {
    instance.tsc_aux = value;
    ++instance.tsc_aux_writes;
}

}  // extern "C"

}  // namespace bulkhead
