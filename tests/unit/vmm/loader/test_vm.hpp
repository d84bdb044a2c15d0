// A VM's RAM and description, and small helpers, for the loader's tests.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "vmm/guest_memory.hpp"
#include "vmm/loader/machine.hpp"
#include "vmm/platform.hpp"

namespace bulkhead::test {

// RAM laid out as the VM builder does, each piece its own allocation so that a stray access is noticed.
class TestVm {
  public:
    explicit TestVm(u64 ram_bytes, u8 garbage = 0xA5) {
        for (const platform::RamPiece& piece : platform::ram_pieces(ram_bytes)) {
            if (piece.length == 0) continue;
            auto& buffer = buffers_.emplace_back(new u8[piece.length]);
            std::memset(buffer.get(), garbage, piece.length);
            const auto added =
                memory.add({GuestPhysical(piece.start), piece.length, buffer.get(), piece.guest_writable});
            if (!added) std::abort();
        }
    }

    template <class T>
    [[nodiscard]] T get(u64 address) const {
        T value{};
        if (!memory.read(GuestPhysical(address), {reinterpret_cast<u8*>(&value), sizeof(T)})) std::abort();
        return value;
    }
    [[nodiscard]] std::vector<u8> bytes(u64 address, u64 length) const {
        std::vector<u8> result(length);
        if (!memory.read(GuestPhysical(address), result)) std::abort();
        return result;
    }
    [[nodiscard]] std::string text(u64 address) const {
        std::string result;
        for (u8 c = get<u8>(address); c != 0; c = get<u8>(++address)) result += static_cast<char>(c);
        return result;
    }

    GuestMemory memory;

  private:
    std::vector<std::unique_ptr<u8[]>> buffers_;
};

inline MachineDescription make_machine(std::span<const u32> apic_ids) {
    MachineDescription machine;
    machine.apic_ids = apic_ids;
    machine.cpu_signature = 0x506E3;
    machine.cpu_features = 0x1783FBFF;
    machine.io_apic_id = 8;
    return machine;
}

inline u8 sum(const std::vector<u8>& data) {
    u8 total = 0;
    for (const u8 byte : data) total = static_cast<u8>(total + byte);
    return total;
}

template <class T>
void put(std::vector<u8>& image, usize offset, T value) {
    if (image.size() < offset + sizeof(T)) image.resize(offset + sizeof(T));
    std::memcpy(image.data() + offset, &value, sizeof(T));
}

// A copy that is exactly as long as it says, so that reading past it is noticed.
class ExactCopy {
  public:
    ExactCopy(Bytes bytes) : size_(bytes.size()), data_(new u8[bytes.size()]) {
        if (!bytes.empty()) std::memcpy(data_.get(), bytes.data(), bytes.size());
    }
    [[nodiscard]] Bytes view() const { return {data_.get(), size_}; }

  private:
    usize size_;
    std::unique_ptr<u8[]> data_;
};

inline bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

}  // namespace bulkhead::test
