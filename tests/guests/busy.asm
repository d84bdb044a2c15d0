; Computes for ever, interrupts on: whoever has a wish of its core is heard at once, in any emulator.
%include "guest.inc"
start:
    begin
    say "busy: computing for ever"
    mov al, 0xFF                       ; no chip interrupts it
    out 0x21, al
    out 0xA1, al
    sti
    jmp $
end_of_guest:
