; The world switch under AMD-V. AMD APM Vol. 2, 15.5 and 15.17 (rev. 3.41).

bits 64
default rel

%include "arch/x86/cpu/speculation.inc"

extern bulkhead_svm_host_vmcb          ; u64 a core: the physical address of the page with the host's VMSAVE state

; Offsets in GeneralRegisters.
RCX_ equ 8
RDX_ equ 16
RBX_ equ 24
RBP_ equ 40
RSI_ equ 48
RDI_ equ 56
R8_  equ 64
R9_  equ 72
R10_ equ 80
R11_ equ 88
R12_ equ 96
R13_ equ 104
R14_ equ 112
R15_ equ 120

section .text

; void bulkhead_svm_enter(GeneralRegisters* registers, u64 vmcb)
; From CLGI to STGI nothing interrupts the host. Its IF is set meanwhile, since with V_INTR_MASKING that is what lets
; a physical interrupt end the guest's turn (15.21.1); the interrupt itself stays pending.
%macro world_switch 1                  ; 1: with what some processors need against speculation
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov eax, [gs:8]                    ; CoreData::index
    lea rcx, [bulkhead_svm_host_vmcb]
    push qword [rcx + rax * 8]
    push rdi
    %if %1
    guard_entry
    %endif
    mov rax, rsi
    clgi
    sti
    mov rcx, [rdi + RCX_]
    mov rdx, [rdi + RDX_]
    mov rbx, [rdi + RBX_]
    mov rbp, [rdi + RBP_]
    mov rsi, [rdi + RSI_]
    mov r8, [rdi + R8_]
    mov r9, [rdi + R9_]
    mov r10, [rdi + R10_]
    mov r11, [rdi + R11_]
    mov r12, [rdi + R12_]
    mov r13, [rdi + R13_]
    mov r14, [rdi + R14_]
    mov r15, [rdi + R15_]
    mov rdi, [rdi + RDI_]
    vmload
    %if %1
    guard_buffers
    %endif
    vmrun
    vmsave                         ; #VMEXIT has given RAX, RSP and RIP back
    mov rax, [rsp]
    mov [rax + RCX_], rcx
    mov [rax + RDX_], rdx
    mov [rax + RBX_], rbx
    mov [rax + RBP_], rbp
    mov [rax + RSI_], rsi
    mov [rax + RDI_], rdi
    mov [rax + R8_], r8
    mov [rax + R9_], r9
    mov [rax + R10_], r10
    mov [rax + R11_], r11
    mov [rax + R12_], r12
    mov [rax + R13_], r13
    mov [rax + R14_], r14
    mov [rax + R15_], r15
    mov rax, [rsp + 8]
    vmload
    %if %1
    guard_exit                     ; the host's GS is back only now; there was no branch on the way
    %endif
    cli
    stgi
    ; No value of the guest's stays behind for the host to speculate on: the others are popped.
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
%endmacro

global bulkhead_svm_enter
align 16
bulkhead_svm_enter:
    endbr64
    world_switch 0

global bulkhead_svm_enter_guarded
align 16
bulkhead_svm_enter_guarded:
    endbr64
    world_switch 1

; u64 bulkhead_svm_rdtsc()
global bulkhead_svm_rdtsc
bulkhead_svm_rdtsc:
    rdtsc
    shl rdx, 32
    or rax, rdx
    ret

section .note.GNU-stack noalloc noexec nowrite progbits
