; The instructions behind vmm/extended_state.hpp.

bits 64
default rel

section .rodata
zero: dd 0

section .text

; Some processors of AMD's leave the last x87 instruction's address and operand alone on a restore when no exception is
; pending: they are made ours first, lest one guest reads another's (AMD APM Vol. 2, 11.4.4, FXRSTOR).
%macro forget_x87_pointers 0
    fnclex
    ffree st7
    fild dword [zero]
%endmacro

; void bulkhead_write_xcr0(u64 value)
global bulkhead_write_xcr0
bulkhead_write_xcr0:
    xor ecx, ecx
    mov eax, edi
    mov rdx, rdi
    shr rdx, 32
    xsetbv
    ret

; u64 bulkhead_read_xcr0()
global bulkhead_read_xcr0
bulkhead_read_xcr0:
    xor ecx, ecx
    xgetbv
    shl rdx, 32
    or rax, rdx
    ret

; void bulkhead_xsave(void* area, u64 mask)
global bulkhead_xsave
bulkhead_xsave:
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    xsave64 [rdi]
    ret

; void bulkhead_xrstor(const void* area, u64 mask)
global bulkhead_xrstor
bulkhead_xrstor:
    forget_x87_pointers
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    xrstor64 [rdi]
    ret

; void bulkhead_fxsave(void* area)
global bulkhead_fxsave
bulkhead_fxsave:
    fxsave64 [rdi]
    ret

; void bulkhead_fxrstor(const void* area)
global bulkhead_fxrstor
bulkhead_fxrstor:
    forget_x87_pointers
    fxrstor64 [rdi]
    ret

; u64 bulkhead_read_debug(u32 index)
global bulkhead_read_debug
bulkhead_read_debug:
    cmp edi, 6
    je .six
    cmp edi, 1
    jb .zero
    je .one
    cmp edi, 2
    je .two
    mov rax, dr3
    ret
.zero:
    mov rax, dr0
    ret
.one:
    mov rax, dr1
    ret
.two:
    mov rax, dr2
    ret
.six:
    mov rax, dr6
    ret

; void bulkhead_write_debug(u32 index, u64 value)
global bulkhead_write_debug
bulkhead_write_debug:
    cmp edi, 6
    je .six
    cmp edi, 1
    jb .zero
    je .one
    cmp edi, 2
    je .two
    mov dr3, rsi
    ret
.zero:
    mov dr0, rsi
    ret
.one:
    mov dr1, rsi
    ret
.two:
    mov dr2, rsi
    ret
.six:
    mov dr6, rsi
    ret

; void bulkhead_write_tsc_aux(u64 value)
global bulkhead_write_tsc_aux
bulkhead_write_tsc_aux:
    mov ecx, 0xC0000103
    mov eax, edi
    mov rdx, rdi
    shr rdx, 32
    wrmsr
    ret

section .note.GNU-stack noalloc noexec nowrite progbits
