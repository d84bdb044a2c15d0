; Halts with interrupts off: parked, not spinning; can be reset and destroyed.
%include "guest.inc"
start:
    begin
    say "halt: interrupts are off, halting"
    cli
    hlt
    say "halt: woke up"
    jmp $
end_of_guest:
