; Entry of all 256 vectors: a common frame (TrapFrame, trap_frame.hpp), then trap_dispatch(TrapFrame*).
; Traps only ever come from ring 0, so GS is the host's own already.
bits 64
default rel

section .text.traps progbits alloc exec nowrite align=16

extern trap_dispatch
global trap_stubs
global trap_stub_size

trap_stub_size  equ 16

; Vectors for which the processor pushes an error code: Intel SDM Vol. 3A, table 6-1 (June 2023 edition), and
; 29, 30 (AMD APM Vol. 2, table 8-1).
%define has_error_code(v) ((v) == 8 || ((v) >= 10 && (v) <= 14) || (v) == 17 || (v) == 21 || (v) == 29 || (v) == 30)

align 16
trap_stubs:
%assign v 0
%rep 256
        align 16, int3
        endbr64
    %if !has_error_code(v)
        push 0
    %endif
        push strict dword v
        jmp near trap_common
    %assign v v + 1
%endrep

align 16
trap_common:
        push r15
        push r14
        push r13
        push r12
        push r11
        push r10
        push r9
        push r8
        push rdi
        push rsi
        push rbp
        push rbx
        push rdx
        push rcx
        push rax
        cld
        mov rdi, rsp
        ; 22 quadwords on a stack that the processor aligned to 16: still aligned.
        call trap_dispatch
        pop rax
        pop rcx
        pop rdx
        pop rbx
        pop rbp
        pop rsi
        pop rdi
        pop r8
        pop r9
        pop r10
        pop r11
        pop r12
        pop r13
        pop r14
        pop r15
        add rsp, 16
        iretq
