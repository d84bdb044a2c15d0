; How every core but the first comes from real mode to core_entered() in 64-bit mode in the upper half.
; Intel SDM Vol. 3A, 9.4 (June 2023 edition).
;
; Many cores may be on this way at once, so nothing here is written: each finds its number, and with it its stack, by
; its APIC ID.

msr_apic_base   equ 0x1B
apic_base_x2apic equ 1 << 10
apic_id_offset  equ 0x20
msr_x2apic_id   equ 0x802
cr0_pe          equ 1 << 0
cr0_ne          equ 1 << 5
cr0_wp          equ 1 << 16
cr0_pg          equ 1 << 31
cr4_pae         equ 1 << 5
msr_efer        equ 0xC0000080
efer_lme        equ 1 << 8
efer_nxe        equ 1 << 11

extern boot_gdt
extern boot_gdt_end
extern early_pml4_physical
extern cpu_stacks
extern core_apic_ids                    ; u32 for each core, by number
extern core_entered                     ; [[noreturn]] void core_entered(u32 number)

max_cpus        equ 64
cpu_stacks_size equ 56 * 1024

; Copied to a page below 1 MiB. CS is that page, IP is 0.
section .trampoline progbits alloc noexec nowrite align=16
bits 16
global core_trampoline
global core_trampoline_end
core_trampoline:
        cli
        cld
        mov ax, cs
        mov ds, ax
        o32 lgdt [.gdt_pointer - core_trampoline]
        mov eax, cr0
        or al, cr0_pe
        mov cr0, eax
        jmp dword 0x10:protected_mode
align 4
.gdt_pointer:
        dw 4 * 8 - 1
        dd boot_gdt
core_trampoline_end:

section .boot.text progbits alloc exec nowrite align=16
bits 32
protected_mode:
        mov eax, 0x18
        mov ds, eax
        mov es, eax
        mov ss, eax

        ; The ID that interrupts are addressed by, from the APIC itself: CPUID has what it was at reset. The mode is
        ; what the firmware left; INIT does not change it.
        mov ecx, msr_apic_base
        rdmsr
        test eax, apic_base_x2apic
        jnz .x2apic
        and eax, 0xFFFFF000
        mov edi, [eax + apic_id_offset]
        shr edi, 24
        jmp .identified
.x2apic:
        mov ecx, msr_x2apic_id
        rdmsr
        mov edi, eax
.identified:

        mov eax, cr4_pae
        mov cr4, eax
        mov eax, early_pml4_physical
        mov cr3, eax
        mov ecx, msr_efer
        rdmsr
        or eax, efer_lme | efer_nxe
        wrmsr
        ; INIT left the caches off (CD and NW set); they go on here.
        mov eax, cr0_pe | cr0_ne | cr0_wp | cr0_pg
        mov cr0, eax
        jmp 8:long_mode

bits 64
long_mode:
        mov rax, upper_half
        jmp rax

section .text progbits alloc exec nowrite align=16
upper_half:
        xor eax, eax
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov ecx, 1                      ; 0 is the core that booted
.next_core:
        cmp edi, [core_apic_ids + rcx * 4]
        je .found
        inc ecx
        cmp ecx, max_cpus
        jb .next_core
.halt:                                  ; nobody we know
        cli
        hlt
        jmp .halt
.found:
        mov edi, ecx
        inc ecx
        imul rcx, rcx, cpu_stacks_size
        lea rsp, [cpu_stacks + rcx]
        xor ebp, ebp                    ; the end of the chain of frames
        call core_entered
        jmp .halt                       ; it does not return
