; Uses an instruction on device memory that the emulator does not know: this VM stops with a reason.
%include "guest.inc"
start:
    begin
    say "unsupported: about to"
    fninit                             ; after RESET the stack is full and its overflow not masked
    fldz
    fstp qword [0xFEC00000]
    say "unsupported: survived it"
    jmp $
end_of_guest:
