; u64 hold_registers(u64 seed, u64 rounds): paints the general registers and XMM0 to XMM15, waits `rounds` rounds,
; and returns how many are not as painted.
bits 64
global hold_registers
section .text

hold_registers:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rel seed], rdi
    mov [rel rounds], rsi
%assign i 0
%rep 16
    lea rax, [rdi + i * 0x101]
    movq xmm %+ i, rax
    punpcklqdq xmm %+ i, xmm %+ i
%assign i i + 1
%endrep
    lea rax, [rdi + 1]
    lea rcx, [rdi + 2]
    lea rdx, [rdi + 3]
    lea rbx, [rdi + 4]
    lea rbp, [rdi + 5]
    lea rsi, [rdi + 6]
    lea r8, [rdi + 8]
    lea r9, [rdi + 9]
    lea r10, [rdi + 10]
    lea r11, [rdi + 11]
    lea r12, [rdi + 12]
    lea r13, [rdi + 13]
    lea r14, [rdi + 14]
    lea r15, [rdi + 15]
.wait:
    pause
    dec qword [rel rounds]
    jnz .wait
    ; What each register has above the seed, less what it should have: all zero.
%macro verify 2
    sub %1, [rel seed]
    sub %1, %2
    jz %%good
    inc qword [rel bad]
%%good:
%endmacro
    mov qword [rel bad], 0
    verify rax, 1
    verify rcx, 2
    verify rdx, 3
    verify rbx, 4
    verify rbp, 5
    verify rsi, 6
    verify rdi, 0
    verify r8, 8
    verify r9, 9
    verify r10, 10
    verify r11, 11
    verify r12, 12
    verify r13, 13
    verify r14, 14
    verify r15, 15
    mov rdi, [rel seed]
%assign i 0
%rep 16
    movq rax, xmm %+ i
    verify rax, i * 0x101
    psrldq xmm %+ i, 8
    movq rax, xmm %+ i
    verify rax, i * 0x101
%assign i i + 1
%endrep
    mov rax, [rel bad]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

section .bss
alignb 8
seed: resq 1
rounds: resq 1
bad: resq 1
