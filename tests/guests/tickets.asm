; vCPUs, as many as CPUID says, that hand a lock to each other, first come, first served: every hand-over waits for the
; one vCPU whose turn it is, so whenever that one is not on a core, the others turn in vain. hand_overs counts; it is at a
; fixed address for the test to read.
%include "guest.inc"
%include "processors.inc"

; A cache line each.
hand_overs equ 0x200000                ; 64 bits
next_ticket equ 0x200040
now_serving equ 0x200080
online equ 0x2000C0
processors equ 0x200100

start:
    begin
    cli
    mask_chips
    mov eax, 1
    cpuid
    shr ebx, 16
    movzx ebx, bl                      ; leaf 1, EBX[23:16]: logical processors of the package
    mov [processors], ebx
    dec ebx
    mov dword [APIC + 0xF0], 0x1FF
    start_processors online
    say "tickets: all vCPUs take turns"
    inc dword [online]

take_turns:
    mov eax, [processors]
    cmp [online], eax
    jne take_turns
    sti
.again:
    mov eax, 1
    lock xadd [next_ticket], eax
.wait:
    cmp [now_serving], eax
    je .mine
    pause
    jmp .wait
.mine:
    add dword [hand_overs], 1
    adc dword [hand_overs + 4], 0
    inc dword [now_serving]
    jmp .again

    processors_begin
    lock inc dword [online]
    jmp take_turns
end_of_guest:
