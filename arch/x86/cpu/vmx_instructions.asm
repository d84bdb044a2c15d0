; VMX instructions for the pure code (arch/x86/vmx/vmcs_access.hpp), without frames or checks of their own.
; The results: 0 VMsucceed, 1 VMfailInvalid (CF), 2 VMfailValid (ZF). Intel SDM Vol. 3C, 31.2 (June 2023 edition).
bits 64
default rel

section .text.vmx_instructions progbits alloc exec nowrite align=16

%macro vmx_function 1
        global %1
        align 16
%1:
%endmacro

%macro return_result 0
        setc al
        setz cl
        lea eax, [rax + 2 * rcx]
        ret
%endmacro

; CF or ZF as the instruction leaves them; the registers are cleared before it so as not to touch the flags after.
%macro clear_result 0
        xor eax, eax
        xor ecx, ecx
%endmacro

; VmxResult bulkhead_vmwrite(u64 encoding, u64 value)
vmx_function bulkhead_vmwrite
        clear_result
        vmwrite rdi, rsi
        return_result

; The instructions with an address in memory take a pointer to it.
%macro vmx_address_function 2
vmx_function %1
        clear_result
        push rdi
        %2 [rsp]
        lea rsp, [rsp + 8]              ; leaves the flags alone
        return_result
%endmacro

; VmxResult f(u64 physical_address)
vmx_address_function bulkhead_vmptrld, vmptrld
vmx_address_function bulkhead_vmclear, vmclear
vmx_address_function bulkhead_vmxon, vmxon

; VmxResult bulkhead_vmxoff()
vmx_function bulkhead_vmxoff
        clear_result
        vmxoff
        return_result

; VmxResult f(type, const InvalidateDescriptor*)
vmx_function bulkhead_invept
        clear_result
        invept rdi, [rsi]
        return_result
vmx_function bulkhead_invvpid
        clear_result
        invvpid rdi, [rsi]
        return_result

; void bulkhead_vmx_take_nmi(): the NMI that ended the guest's turn, through the host's IDT. Its IRET unblocks NMIs.
vmx_function bulkhead_vmx_take_nmi
        int 2
        ret
