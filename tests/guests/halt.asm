; Halts with interrupts off: parked, not spinning; can be reset and destroyed.
%include "guest.inc"
start:
    mov esp, STACK_TOP
    say "halt: interrupts are off, halting"
    cli
    hlt
    say "halt: woke up"
    jmp $
end_of_guest:
