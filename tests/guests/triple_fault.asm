; Takes an exception without a usable IDT: the processor shuts down, and only this VM resets.
%include "guest.inc"
start:
    begin
    say "triple fault: about to"
    lidt [empty]
    int3
    say "triple fault: survived it"
    jmp $
empty:
    dw 0
    dd 0
end_of_guest:
