; Keeps its processor for ever inside its NMI handler: interrupts off, and NMIs blocked until an IRET that never comes.
%include "guest.inc"

APIC_SPURIOUS equ 0xFEE000F0
APIC_COMMAND equ 0xFEE00300
NMI equ 2

start:
    begin
    cli
    mov eax, handler
    mov [gates + 8 * NMI], ax
    mov word [gates + 8 * NMI + 2], cs
    mov word [gates + 8 * NMI + 4], 0x8E00 ; an interrupt gate
    shr eax, 16
    mov [gates + 8 * NMI + 6], ax
    lidt [table]
    mov dword [APIC_SPURIOUS], 0x1FF
    mov dword [APIC_COMMAND + 0x10], 0     ; to APIC ID 0: itself
    mov dword [APIC_COMMAND], 0x4400       ; an NMI
    mov ecx, 1000000
    loop $
    say "nmi_spin: no NMI came"
    jmp $

handler:
    say "nmi_spin: in the NMI handler, looping for ever"
    jmp $

table:
    dw gates_end - gates - 1
    dd gates
align 8
gates: times 8 * (NMI + 1) db 0
gates_end:
end_of_guest:
