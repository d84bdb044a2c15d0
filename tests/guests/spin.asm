; Keeps its processor for ever, interrupts off: the console must answer all the same.
%include "guest.inc"
start:
    begin
    say "spin: interrupts are off, looping for ever"
    cli
    jmp $
end_of_guest:
