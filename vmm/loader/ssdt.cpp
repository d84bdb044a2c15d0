#include "vmm/loader/ssdt.hpp"

#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

// Opcodes.
constexpr u8 name_op = 0x08, word_prefix = 0x0B, dword_prefix = 0x0C, string_prefix = 0x0D, scope_op = 0x10,
             buffer_op = 0x11, ext_prefix = 0x5B, device_op = 0x82, root_char = '\\';

// Package lengths are written in their 3-byte form once the contents are known: two bits say how many bytes
// follow, then the length's low 4 bits, then 8 and 8; the length counts its own bytes.
constexpr usize package_length_size = 3;

class Package {
  public:
    explicit Package(ByteWriter& out) : out_(out), start_(out.position()) { out.zeros(package_length_size); }
    Package(const Package&) = delete;
    Package& operator=(const Package&) = delete;
    ~Package() {
        const usize length = out_.position() - start_;
        out_.put_at(start_, static_cast<u8>(0x80 | (length & 0xF)));
        out_.put_at(start_ + 1, static_cast<u8>(length >> 4));
        out_.put_at(start_ + 2, static_cast<u8>(length >> 12));
    }

  private:
    ByteWriter& out_;
    usize start_;
};

struct NameSegment {
    char text[5];  // four characters and a terminator that is not written
};

// A letter and three hexadecimal digits.
constexpr NameSegment numbered(char letter, unsigned number) {
    constexpr char digits[] = "0123456789ABCDEF";
    return {{letter, digits[(number >> 8) & 0xF], digits[(number >> 4) & 0xF], digits[number & 0xF], '\0'}};
}

// An EISA ID packed as _HID wants it: five bits a letter, then four digits, most significant byte first.
constexpr u32 eisa_id(const char (&id)[8]) {
    const auto letter = [&](unsigned i) { return static_cast<u32>(id[i] - 0x40); };
    const auto digit = [&](unsigned i) {
        return static_cast<u32>(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
    };
    const u32 value = letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digit(3) << 12 | digit(4) << 8 |
                      digit(5) << 4 | digit(6);
    return __builtin_bswap32(value);
}
static_assert(eisa_id("PNP0501") == 0x0105D041);

void put_name(ByteWriter& out, const char (&name)[5]) {
    out.put(name_op);
    out.text({name, 4});
}

void put_hid(ByteWriter& out, u32 id) {
    put_name(out, "_HID");
    out.put(dword_prefix);
    out.put(id);
}

void put_hid(ByteWriter& out, std::string_view id) {
    put_name(out, "_HID");
    out.put(string_prefix);
    out.c_string(id);
}

void put_uid(ByteWriter& out, u16 value) {
    put_name(out, "_UID");
    out.put(word_prefix);
    out.put(value);
}

// Resource descriptors (ACPI 5.0, 6.4).
void put_io(ByteWriter& out, Port port, u8 length) {
    out.put<u8>(0x47);
    out.put<u8>(1);  // 16-bit decode
    out.put(port.raw());
    out.put(port.raw());
    out.put<u8>(1);
    out.put(length);
}

void put_irq(ByteWriter& out, u8 irq) {
    out.put<u8>(0x22);  // edge-triggered, active-high, exclusive
    out.put(static_cast<u16>(1U << irq));
}

void put_memory(ByteWriter& out, u32 base, u32 length) {
    out.put<u8>(0x86);
    out.put<u16>(9);
    out.put<u8>(1);  // writable
    out.put(base);
    out.put(length);
}

void put_level_gsi(ByteWriter& out, u32 gsi) {
    out.put<u8>(0x89);
    out.put<u16>(6);
    out.put<u8>(1);  // consumer, level-triggered, active-high, exclusive
    out.put<u8>(1);
    out.put(gsi);
}

// Name (_CRS, Buffer { what `fill` writes, and the end tag })
template <class Fill>
void put_resources(ByteWriter& out, Fill fill) {
    put_name(out, "_CRS");
    out.put(buffer_op);
    const Package package(out);
    const usize size_at = out.position() + 1;
    out.put(word_prefix);
    out.put<u16>(0);
    const usize start = out.position();
    fill();
    out.put<u8>(0x79);
    out.put<u8>(0);  // no checksum
    out.put_at(size_at, static_cast<u16>(out.position() - start));
}

template <class Fill>
void put_device(ByteWriter& out, NameSegment name, Fill fill) {
    out.put(ext_prefix);
    out.put(device_op);
    const Package package(out);
    out.text({name.text, 4});
    fill();
}

void put_serial_port(ByteWriter& out, NameSegment name, u16 uid, Port port, u8 irq) {
    put_device(out, name, [&] {
        put_hid(out, eisa_id("PNP0501"));
        put_uid(out, uid);
        put_resources(out, [&] {
            put_io(out, port, 8);
            put_irq(out, irq);
        });
    });
}

}  // namespace

void put_ssdt_terms(ByteWriter& out, const MachineDescription& machine) {
    out.put(scope_op);
    const Package scope(out);
    out.put(root_char);
    out.text("_SB_");

    if (machine.com1) put_serial_port(out, {"COM1"}, 1, platform::com1, platform::irq_com1);
    if (machine.com2) put_serial_port(out, {"COM2"}, 2, platform::com2, platform::irq_com2);
    if (machine.keyboard_controller) {
        put_device(out, {"KBD_"}, [&] {
            put_hid(out, eisa_id("PNP0303"));
            put_resources(out, [&] {
                put_io(out, platform::keyboard_data, 1);
                put_io(out, platform::keyboard_command, 1);
                put_irq(out, platform::irq_keyboard);
            });
        });
        // The controller's second port, with no mouse at its end. Without the node Linux warns of a port that
        // firmware has disabled.
        put_device(out, {"MOU_"}, [&] {
            put_hid(out, eisa_id("PNP0F13"));
            put_resources(out, [&] { put_irq(out, platform::irq_mouse); });
        });
    }
    for (usize i = 0; i < machine.virtio_mmio.size(); ++i) {
        const VirtioMmioNode& node = machine.virtio_mmio[i];
        put_device(out, numbered('V', static_cast<unsigned>(i)), [&] {
            put_hid(out, "LNRO0005");
            put_uid(out, static_cast<u16>(i));
            put_resources(out, [&] {
                put_memory(out, static_cast<u32>(node.base), node.length);
                put_level_gsi(out, node.gsi);
            });
        });
    }
    for (usize i = 0; i < machine.apic_ids.size(); ++i) {
        put_device(out, numbered('C', static_cast<unsigned>(i)), [&] {
            put_hid(out, "ACPI0007");
            put_uid(out, static_cast<u16>(i));
        });
    }
}

}  // namespace bulkhead
