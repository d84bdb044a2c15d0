// The interrupt controllers of a PC: two 8259A, the second on input 2 of the first, and the edge/level
// control registers (ELCR). References: Intel 8259A data sheet (order 231468-003, December 1988); Intel
// 82371FB/SB PIIX3 data sheet (order 290550-002, April 1997) for ELCR and what a chipset leaves out of the
// 8259A.
//
// Implemented: ICW1-ICW4 sequences, OCW1-OCW3, edge and level inputs, fixed and rotating priority, specific
// and non-specific and automatic EOI, special mask mode, special fully nested mode, poll, the default
// interrupt 7 for a request that vanished. As on the chip, a request lives only while its input is high: a
// device holds its line until it is served.
// Ignored, as PIIX3 does: ICW1.LTIM (ELCR replaces it), ICW3 (the wiring is fixed), SNGL except that it skips
// ICW3, buffered mode, the 8080's three-byte vectors.
//
// Offsets: 0-1 first chip (20h), 2-3 second chip (A0h), 4-5 ELCR (4D0h). Not synchronised: one caller at a
// time.
#pragma once

#include "vmm/dev/byte_device.hpp"

namespace bulkhead {

class Pic8259 final : public ByteDevice {
  public:
    static constexpr unsigned inputs = 16;

    // `output`: the first chip's INT, to the processor's INTR (or LINT0 and an I/O APIC pin).
    explicit Pic8259(IrqLine& output);

    [[nodiscard]] std::string_view name() const override { return "pic-8259"; }
    void reset() override;

    // Inputs 0-15 but 2, which the second chip drives; others are ignored.
    void set_irq(unsigned number, bool level);
    [[nodiscard]] IrqLine& input(unsigned number) { return lines_[number % inputs]; }

    // The processor's interrupt acknowledge cycle: the vector to deliver. Without a request it is the default
    // vector of input 7, and nothing comes into service.
    [[nodiscard]] u8 acknowledge();

    [[nodiscard]] bool output() const { return output_level_; }

  private:
    static constexpr u8 cascade_input = 2;

    struct Line final : IrqLine {
        void set(bool level) override { pic->set_irq(number, level); }
        Pic8259* pic = nullptr;
        unsigned number = 0;
    };

    struct Chip {
        u8 levels = 0;  // of the input pins
        u8 request = 0;
        u8 service = 0;
        u8 mask = 0;
        u8 level_triggered = 0;
        u8 base = 0;
        u8 lowest = 7;    // the input of lowest priority
        u8 next_icw = 0;  // 2, 3 or 4 in an initialisation sequence, else 0
        bool icw4_follows = false;
        bool single = false;
        bool automatic_eoi = false;
        bool rotate_on_automatic_eoi = false;
        bool fully_nested = false;  // "special fully nested": the cascade input may interrupt itself
        bool special_mask = false;
        bool read_service = false;
        bool poll = false;

        void set(u8 input, bool level);
        // Distance from the highest priority of the first of `inputs`: 0-7, or 8 for none.
        [[nodiscard]] u8 priority_of(u8 inputs) const;
        // The input to serve next: 0-7, or 8 for none.
        [[nodiscard]] u8 best() const;
        void begin_service(u8 input);
        void write_command(u8 value);
        void write_data(u8 value);
        void write_ocw2(u8 value);
        [[nodiscard]] u8 read(bool data_port);
    };

    u8 read_byte(u64 offset) override;
    void write_byte(u64 offset, u8 value) override;
    void update();

    IrqLine& output_;
    bool output_level_ = false;
    Chip first_;
    Chip second_;
    Line lines_[inputs];
};

}  // namespace bulkhead
