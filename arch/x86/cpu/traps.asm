; Entry of all 256 vectors: a common frame (TrapFrame, trap_frame.hpp), then bool trap_dispatch(TrapFrame*).
; Traps only ever come from ring 0, so GS is the host's own already.
bits 64
default rel

section .text.traps progbits alloc exec nowrite align=16

extern trap_dispatch
global trap_stubs
global trap_stub_size

trap_stub_size  equ 16
rip_at          equ 17 * 8              ; in TrapFrame
msr_s_cet       equ 0x6A2
s_cet_write_enable equ 1 << 1

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
        test al, al
        jnz return_elsewhere
return_from_trap:
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

; The frame's RIP is not what the processor pushed: the shadow stack must agree. On its top is what the processor pushed
; there: SSP, RIP above it, CS above that (Intel SDM Vol. 1, 17.2.3, June 2023 edition). It is written only here, and
; writing it is allowed only meanwhile. Interrupts are disabled.
return_elsewhere:
        xor edi, edi
        rdsspq rdi                      ; does nothing on a core that is not yet there
        test rdi, rdi
        jz return_from_trap
        mov ecx, msr_s_cet
        rdmsr
        mov r8d, eax                    ; with it, where a machine check came amid this
        or eax, s_cet_write_enable
        wrmsr
        mov rsi, [rsp + rip_at]
        wrssq [rdi + 8], rsi
        mov eax, r8d
        wrmsr
        jmp return_from_trap
