// Sparse physical memory for the parsers of boot information.
#pragma once

#include <cstring>
#include <map>
#include <string_view>
#include <vector>

#include "kernel/bootinfo/physical_reader.hpp"

namespace bulkhead {

// Little-endian bytes, appended one field after the other.
class ByteWriter {
  public:
    template <class T>
    ByteWriter& put(T value) {
        const auto* raw = reinterpret_cast<const u8*>(&value);
        bytes.insert(bytes.end(), raw, raw + sizeof value);
        return *this;
    }
    ByteWriter& text(std::string_view text) {
        bytes.insert(bytes.end(), text.begin(), text.end());
        return *this;
    }
    ByteWriter& zeros(usize count) {
        bytes.insert(bytes.end(), count, 0);
        return *this;
    }
    template <class T>
    void set(usize offset, T value) {
        std::memcpy(bytes.data() + offset, &value, sizeof value);
    }
    std::vector<u8> bytes;
};

class FakePhysical final : public PhysicalReader {
  public:
    std::optional<Bytes> read(HostPhysical start, u64 length) override {
        ++reads;
        if (length > max_length) return std::nullopt;
        auto next = regions.upper_bound(start.raw());
        if (next == regions.begin()) return std::nullopt;
        const auto& [base, bytes] = *std::prev(next);
        const auto part = slice(bytes, start.raw() - base, length);
        if (!part) return std::nullopt;
        // A fresh copy each time, the last one gone: whoever keeps bytes across reads is caught.
        window.assign(part->begin(), part->end());
        window.shrink_to_fit();
        std::vector<u8>(window).swap(window);
        return window;
    }
    void add(u64 address, const ByteWriter& writer) { regions[address] = writer.bytes; }
    void add_text(u64 address, std::string_view text) { add(address, ByteWriter().text(text).put<u8>(0)); }

    std::map<u64, std::vector<u8>> regions;
    std::vector<u8> window;
    u64 reads = 0;
};

}  // namespace bulkhead
