; VT-x: the world switch. Interrupts are disabled throughout.
bits 64
default rel

section .text.vmx_entry progbits alloc exec nowrite align=16

%include "arch/x86/cpu/speculation.inc"

global bulkhead_vmx_enter
global bulkhead_vmx_exit
global bulkhead_vmx_enter_guarded
global bulkhead_vmx_exit_guarded

; VMCS field encodings: Intel SDM Vol. 3D, appendix B (June 2023 edition); arch/x86/vmx/vmcs_fields.hpp.
exit_reason     equ 0x4402
guest_rsp       equ 0x681C
host_rsp        equ 0x6C14
host_ssp        equ 0x6C1A

; GeneralRegisters (vmm/cpu_state.hpp).
%define rax_at 0
%define rcx_at 8
%define rdx_at 16
%define rbx_at 24
%define rsp_at 32
%define rbp_at 40
%define rsi_at 48
%define rdi_at 56
%define r8_at  64
%define r9_at  72
%define r10_at 80
%define r11_at 88
%define r12_at 96
%define r13_at 104
%define r14_at 112
%define r15_at 120

%macro save_host 0
        push rbp
        push rbx
        push r12
        push r13
        push r14
        push r15
        push rdi
        mov eax, host_rsp
        vmwrite rax, rsp
        mov eax, guest_rsp
        vmwrite rax, [rdi + rsp_at]
%endmacro

; All but RSP, which VM entry loads. Leaves the flags alone.
%macro load_guest 0
        mov rax, [rdi + rax_at]
        mov rcx, [rdi + rcx_at]
        mov rdx, [rdi + rdx_at]
        mov rbx, [rdi + rbx_at]
        mov rbp, [rdi + rbp_at]
        mov rsi, [rdi + rsi_at]
        mov r8, [rdi + r8_at]
        mov r9, [rdi + r9_at]
        mov r10, [rdi + r10_at]
        mov r11, [rdi + r11_at]
        mov r12, [rdi + r12_at]
        mov r13, [rdi + r13_at]
        mov r14, [rdi + r14_at]
        mov r15, [rdi + r15_at]
        mov rdi, [rdi + rdi_at]
%endmacro

; u64 bulkhead_vmx_enter(GeneralRegisters* registers, bool launched)
align 16
bulkhead_vmx_enter:
        endbr64
        save_host
        test sil, sil
        load_guest
        jz .launch
        vmresume
        jmp .failed
.launch:
        vmlaunch
        ; VMfail: nothing has changed but the flags.
.failed:
        pop rdi
        mov rax, -1
        jmp leave

; The same, with what some processors need against speculation and for the host's shadow stack; HOST_RIP is
; bulkhead_vmx_exit_guarded then.
align 16
bulkhead_vmx_enter_guarded:
        endbr64
        save_host
        cmp byte [bulkhead_shadow_stacks], 0
        je .no_shadow_stack
        rdsspq rcx
        mov eax, host_ssp
        vmwrite rax, rcx
.no_shadow_stack:
        guard_entry
        test sil, sil
        jz .launch
        load_guest
        guard_buffers
        vmresume
        jmp .failed
.launch:
        load_guest
        guard_buffers
        vmlaunch
.failed:
        guard_exit
        pop rdi
        mov rax, -1
        jmp leave

align 16
bulkhead_vmx_exit_guarded:
        guard_exit
        jmp bulkhead_vmx_exit

; HOST_RIP. RSP is as at VM entry; every other register is the guest's.
align 16
bulkhead_vmx_exit:
        xchg rdi, [rsp]                 ; registers <-> the guest's RDI
        mov [rdi + rax_at], rax
        mov [rdi + rcx_at], rcx
        mov [rdi + rdx_at], rdx
        mov [rdi + rbx_at], rbx
        pop rax
        mov [rdi + rdi_at], rax
        mov [rdi + rbp_at], rbp
        mov [rdi + rsi_at], rsi
        mov [rdi + r8_at], r8
        mov [rdi + r9_at], r9
        mov [rdi + r10_at], r10
        mov [rdi + r11_at], r11
        mov [rdi + r12_at], r12
        mov [rdi + r13_at], r13
        mov [rdi + r14_at], r14
        mov [rdi + r15_at], r15
        mov eax, guest_rsp
        vmread [rdi + rsp_at], rax
        mov eax, exit_reason
        vmread rax, rax
leave:
        ; No value of the guest's stays behind for the host to speculate on: the others are popped.
        xor ecx, ecx
        xor edx, edx
        xor esi, esi
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbx
        pop rbp
        ret
