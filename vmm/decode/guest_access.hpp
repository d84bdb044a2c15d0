// Memory as an instruction names it: segment and offset, checked by segmentation and paging, down to
// guest-physical accesses. Nothing is touched before every byte of an operand is known to be accessible.
// Intel SDM Vol. 3A, chapters 4 and 5 (June 2023 edition).
#pragma once

#include "vmm/decode/decoder.hpp"
#include "vmm/decode/emulation_context.hpp"

namespace bulkhead {

// The mode in which the virtual processor executes.
struct ExecutionMode {
    CodeSize code = CodeSize::bits64;
    bool protected_mode = true;  // CR0.PE set and not virtual-8086: segment types are checked
    bool error_codes = true;     // exceptions push error codes: all modes but real mode
    u8 cpl = 0;
};
[[nodiscard]] ExecutionMode execution_mode(const EmulationContext& context);

// A translation that the hardware made for the access that exited. Used only where the emulated access is to
// the same place in the same direction; so it need not be trusted to belong to the instruction found.
struct KnownTranslation {
    GuestPhysical physical{};
    GuestVirtual linear{};
    bool valid = false;
    bool linear_known = false;  // VT-x tells both; AMD-V only the physical address
    bool writable = false;      // the hardware was about to write
};

// How an emulation ended.
struct Outcome {
    enum class Kind : u8 {
        done,         // RIP and flags advanced
        exception,    // `event` is due; RIP at the instruction; a string's registers at the completed part
        unsupported,  // nothing changed: the emulator does not know this instruction, or not on this memory
        interrupted,  // RIP at the instruction, registers at the completed part: to be executed again
        stepped,      // likewise, but a single-step trap is due first
    };
    Kind kind = Kind::done;
    Event event{};
};

enum class AccessKind : u8 { read, write };  // write: also read-modify-write

// An operand whose every byte is accessible.
struct Translated {
    GuestPhysical first{};
    GuestPhysical second{};  // where the operand crosses into another page
    u8 size = 0;
    u8 first_size = 0;  // == size where it does not cross
};

// Functions return false when the instruction ends; outcome() then says how.
class GuestAccess {
  public:
    GuestAccess(EmulationContext& context, const ExecutionMode& mode, const KnownTranslation& known);

    [[nodiscard]] const Outcome& outcome() const { return outcome_; }
    [[nodiscard]] const ExecutionMode& mode() const { return mode_; }
    [[nodiscard]] bool raise(const Event& event);
    [[nodiscard]] bool raise(Vector vector, std::optional<u32> error_code);  // the code dropped in real mode
    [[nodiscard]] bool raise_general_protection() { return raise(exception::general_protection, 0); }
    [[nodiscard]] bool stop(Outcome::Kind kind);

    // Linear address of [offset, offset + size) in a segment. `offset` is cut to the address size already.
    // #GP(0) or #SS(0) where the segment does not allow the access, #AC where it is misaligned and that
    // matters.
    [[nodiscard]] bool linear(SegmentName name, u64 offset, unsigned size, AccessKind kind, u64& address);
    // The same with a segment that was read before.
    [[nodiscard]] bool linear_in(const Segment& segment, SegmentName name, u64 offset, unsigned size,
                                 AccessKind kind, u64& address);
    // Whether linear_in() needs the segment at all.
    [[nodiscard]] bool is_flat(SegmentName name) const {
        return mode_.code == CodeSize::bits64 && name < SegmentName::fs;
    }

    // Translates `size` (1..8) bytes. `only_operand`: the instruction makes no other memory access, so that a
    // known physical address can be this operand's.
    [[nodiscard]] bool translate(u64 address, unsigned size, AccessKind kind, bool only_operand,
                                 Translated& to) {
        const u64 in_page = address & (page_size - 1);
        if (in_page + size <= page_size) [[likely]] {
            to.size = to.first_size = static_cast<u8>(size);
            return translate_page(address, kind, only_operand, to.first);
        }
        return translate_across(address, size, kind, to);
    }

    [[nodiscard]] bool load(const Translated& from, u64& value);
    [[nodiscard]] bool store(const Translated& to, u64 value);

  private:
    struct Window {
        u64 page = ~u64{0};  // linear page number; no page has this one
        GuestPhysical physical{};
    };

    [[nodiscard]] bool translate_page(u64 address, AccessKind kind, bool only_operand, GuestPhysical& to) {
        const Window& window = windows_[static_cast<unsigned>(kind)];
        const u64 in_page = address & (page_size - 1);
        if (window.page == address / page_size) {
            to = window.physical + in_page;
            return true;
        }
        if (only_operand && known_physical_ && known_->physical.offset_in(page_size) == in_page &&
            (known_->writable || kind == AccessKind::read)) {
            to = known_->physical;
            return true;
        }
        return walk(address, kind, to);
    }
    [[nodiscard]] bool translate_across(u64 address, unsigned size, AccessKind kind, Translated& to);
    [[nodiscard]] bool walk(u64 address, AccessKind kind, GuestPhysical& to);
    [[nodiscard]] bool misaligned(u64 address, unsigned size);

    EmulationContext& context_;
    const ExecutionMode& mode_;
    const KnownTranslation* known_;
    bool known_physical_;
    Window windows_[2];  // by AccessKind: the last page translated
    Outcome outcome_{};
};

// Whether a 64-bit linear address is canonical, given CR4.LA57.
[[nodiscard]] constexpr bool is_canonical(u64 address, bool five_levels) {
    const unsigned shift = five_levels ? 7 : 16;
    return static_cast<u64>(static_cast<i64>(address << shift) >> shift) == address;
}

[[nodiscard]] PagingState paging_state(const EmulationContext& context);

// The bytes at CS:RIP, read at most once each: a second processor that rewrites the code meanwhile changes
// which instruction is executed, never what was checked of it.
struct FetchedInstruction {
    DecodeStatus status = DecodeStatus::ok;  // ok: `instruction` holds it
    Outcome outcome{};                       // else: the exception due, or unsupported, or interrupted
    Instruction instruction{};
    u8 bytes[Instruction::max_length] = {};
    u8 byte_count = 0;
};

// Fetches and decodes the instruction at CS:RIP. The next page is only looked at if the instruction goes on
// there. Returns whether there is an instruction.
[[nodiscard]] bool fetch_instruction(EmulationContext& context, const ExecutionMode& mode,
                                     FetchedInstruction& fetched);

}  // namespace bulkhead
