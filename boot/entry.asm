; From the boot loader: Multiboot 1 and 2 headers, the check for long mode, the first page tables and
; the way to boot_main() in 64-bit mode in the upper half.
; Multiboot Specification 0.6.96, 3.2 and 3.3; Multiboot2 Specification 2.0, 3.1 and 3.3.

kernel_base     equ 0xFFFFFFFF80000000

section .multiboot progbits alloc noexec nowrite align=8

mb1_magic       equ 0x1BADB002
mb1_flags       equ 1 << 0 | 1 << 1 | 1 << 2    ; modules page-aligned; memory information; a video mode

align 8
multiboot1_header:
        dd mb1_magic
        dd mb1_flags
        dd -(mb1_magic + mb1_flags)
        dd 0, 0, 0, 0, 0                ; load addresses: the ELF headers have them
        dd 1                            ; video: EGA text,
        dd 80, 25, 0                    ; 80 columns, 25 lines

mb2_magic       equ 0xE85250D6

align 8
multiboot2_header:
        dd mb2_magic
        dd 0                            ; i386 protected mode, on UEFI machines too
        dd multiboot2_header_end - multiboot2_header
        dd -(mb2_magic + (multiboot2_header_end - multiboot2_header))
align 8
.information_request:
        dw 1, 1                         ; optional: what is missing is reported by boot_main()
        dd .information_request_end - .information_request
        dd 1, 3, 6, 8, 14, 15           ; command line, modules, memory map, framebuffer, old and new RSDP
.information_request_end:
align 8
        dw 4, 1                         ; console flags, optional:
        dd 12
        dd 2                            ; EGA text is understood
align 8
        dw 5, 1                         ; framebuffer, optional: without this tag GRUB gives a UEFI machine no screen.
        dd 20                           ; No preference; on a BIOS machine `set gfxpayload=text` keeps the text mode.
        dd 0, 0, 0
align 8
        dw 6, 1                         ; modules page-aligned
        dd 8
align 8
        dw 0, 0
        dd 8
multiboot2_header_end:

; ---------------------------------------------------------------------------------------------------------
bits 32
section .boot.text progbits alloc exec nowrite align=16

extern early_pml4_physical
extern early_pdpt_low_physical
extern early_pdpt_high_physical
extern early_directory_physical

cr0_pe          equ 1 << 0
cr0_ne          equ 1 << 5
cr0_wp          equ 1 << 16
cr0_pg          equ 1 << 31
cr4_pae         equ 1 << 5
msr_efer        equ 0xC0000080
efer_lme        equ 1 << 8
pte_present     equ 1 << 0
pte_write       equ 1 << 1
pte_large       equ 1 << 7

global boot_entry
boot_entry:
        cli
        cld
        mov esp, boot_stack_top_physical
        mov ebp, eax                    ; the loader's magic
        mov edi, ebx                    ; the information it passes

        ; CPUID exists if the ID flag can be changed.
        pushfd
        pop eax
        mov ecx, eax
        xor eax, 1 << 21
        push eax
        popfd
        pushfd
        pop eax
        cmp eax, ecx
        je no_long_mode

        mov eax, 0x80000000
        cpuid
        cmp eax, 0x80000001
        jb no_long_mode
        mov eax, 0x80000001
        cpuid
        test edx, 1 << 29
        jz no_long_mode
        test edx, 1 << 20
        jz no_nx

        ; The first GiB, at 0 and at kernel_base, in 2 MiB pages: one directory serves both.
        mov eax, early_pdpt_low_physical + (pte_present | pte_write)
        mov [early_pml4_physical], eax
        mov eax, early_pdpt_high_physical + (pte_present | pte_write)
        mov [early_pml4_physical + 511 * 8], eax
        mov eax, early_directory_physical + (pte_present | pte_write)
        mov [early_pdpt_low_physical], eax
        mov [early_pdpt_high_physical + 510 * 8], eax
        mov ebx, early_directory_physical
        mov eax, pte_present | pte_write | pte_large
        mov ecx, 512
.next_page:
        mov [ebx], eax
        add ebx, 8
        add eax, 0x200000
        loop .next_page

        mov eax, cr4_pae
        mov cr4, eax
        mov eax, early_pml4_physical
        mov cr3, eax
        mov ecx, msr_efer
        rdmsr
        or eax, efer_lme
        wrmsr
        mov eax, cr0_pe | cr0_ne | cr0_wp | cr0_pg
        mov cr0, eax
        lgdt [boot_gdt_pointer]
        jmp 8:long_mode

no_nx:
        mov esi, no_nx_text
        jmp refuse
no_long_mode:
        mov esi, no_long_mode_text
refuse:                                 ; ESI: text. On COM1, set to 115200n8, and on the screen's last line.
        mov dx, 0x3FB
        mov al, 0x80
        out dx, al
        mov dx, 0x3F8
        mov al, 1
        out dx, al
        inc dx
        xor al, al
        out dx, al
        mov dx, 0x3FB
        mov al, 3
        out dx, al
        mov edi, 0xB8000 + 24 * 160
.next_character:
        lodsb
        test al, al
        jz .halt
        mov [edi], al
        mov byte [edi + 1], 0x4F
        add edi, 2
        mov ah, al
        mov dx, 0x3FD
        mov ecx, 100000                 ; an absent or stuck UART must not hang us without the text on screen
.wait:
        in al, dx
        test al, 0x20
        loopz .wait
        mov al, ah
        mov dx, 0x3F8
        out dx, al
        jmp .next_character
.halt:
        cli
        hlt
        jmp .halt

no_long_mode_text:
        db 13, 10, "HV-E008: this processor has no 64-bit mode; Bulkhead needs an x86-64 machine", 13, 10, 0
no_nx_text:
        db 13, 10, "HV-E008: no execute-disable (NX); enable it in the firmware setup", 13, 10, 0

align 8
global boot_gdt
global boot_gdt_end
boot_gdt:
        dq 0
        dq 0x00209A0000000000           ; 08h: 64-bit code, ring 0
        dq 0x00CF9A000000FFFF           ; 10h: 32-bit code and
        dq 0x00CF92000000FFFF           ; 18h: data, for the other cores on their way here
boot_gdt_end:
boot_gdt_pointer:
        dw boot_gdt_end - boot_gdt - 1
        dd boot_gdt

bits 64
long_mode:
        mov rax, upper_half
        jmp rax

; ---------------------------------------------------------------------------------------------------------
section .text progbits alloc exec nowrite align=16
extern boot_main
extern __stack_chk_guard

upper_half:
        xor eax, eax
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov rsp, boot_stack_top
        ; The stack protector's guard: a zero byte first, as strings end with one, then what the clock shows.
        rdtsc
        shl rdx, 32
        or rax, rdx
        mov rdx, 0x9E3779B97F4A7C15
        mul rdx
        xor rax, rdx
        shl rax, 8
        mov [__stack_chk_guard], rax

        mov esi, edi                    ; second argument: physical address of the boot information
        mov edi, ebp                    ; first: the magic
        xor ebp, ebp                    ; the end of the chain of frames
        call boot_main
.halt:                                  ; boot_main() does not return
        cli
        hlt
        jmp .halt

; They serve the other cores too, until each has loaded the kernel's own.
section .bss..early_tables nobits alloc noexec write align=4096
global early_pml4
global early_pdpt_low
global early_pdpt_high
global early_directory
early_pml4:             resb 4096
early_pdpt_low:         resb 4096
early_pdpt_high:        resb 4096
early_directory:        resb 4096

extern boot_stack_top
extern boot_stack_top_physical
