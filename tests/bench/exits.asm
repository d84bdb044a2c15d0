; Measures what operations cost that a hypervisor may have to step in for: the round trip from the guest and back, in
; TSC ticks. The results go to COM1, a line `BENCH name minimum median` each; then the machine is turned off by ACPI.
; One operation's name in scripts/bench.py is its name here.
;
; A Multiboot 1 kernel by its address fields: `nasm -f bin`, loaded at 1 MiB, 64 bits with the first 4 GiB at their own
; addresses in 2 MiB pages. It wants 64 MiB.
bits 32
org 0x100000

COM1 equ 0x3F8
LOCAL_APIC equ 0xFEE00000
IO_APIC equ 0xFEC00000
HOLE equ 0xE0000000                    ; where no device is
UNMAPPED equ 0x100000000               ; a page fault
UNTOUCHED equ 0x2000000                ; RAM that nobody has used
SCRATCH equ COM1 + 7                   ; a register that holds what is written

; What is behind the file.
page_tables equ 0x200000               ; PML4, PDPT, four page directories
idt equ 0x206000
samples equ 0x207000
results equ 0x208000
stack_top equ 0x210000

IPI_VECTOR equ 0x41
IPI_X2APIC_VECTOR equ 0x42
TIMER_VECTOR equ 0x43

header:
    dd 0x1BADB002
    dd 0x00010003                      ; pages aligned, memory information, address fields valid
    dd -(0x1BADB002 + 0x00010003)
    dd header, header, 0, stack_top, start

start:
    mov esp, stack_top
    cld
    mov edi, page_tables
    mov dword [edi], page_tables + 0x1000 + 3
    lea eax, [edi + 0x2000 + 3]
    mov ecx, 4
.directories:
    mov [edi + 0x1000], eax
    add edi, 8
    add eax, 0x1000
    loop .directories
    mov edi, page_tables + 0x2000
    mov eax, 0x83                      ; present, writable, 2 MiB
    mov ecx, 4 * 512
.pages:
    mov [edi], eax
    add edi, 8
    add eax, 0x200000
    loop .pages
    mov eax, 0x20                      ; PAE
    mov cr4, eax
    mov eax, page_tables
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100                      ; LME
    wrmsr
    mov eax, 0x80010033                ; PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    jmp 8:long_mode

gdt:
    dq 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
    dw $ - gdt - 1
    dd gdt, 0

bits 64
%include "exits.inc"

; gate VECTOR, HANDLER
%macro gate 2
    mov eax, %2
    mov [idt + %1 * 16], ax
    mov dword [idt + %1 * 16 + 2], 0x8E000000 | 8
    mov byte [idt + %1 * 16 + 5], 0x8E
    shr eax, 16
    mov [idt + %1 * 16 + 6], eax
    mov dword [idt + %1 * 16 + 8], 0
%endmacro

long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov r13d, LOCAL_APIC               ; R13 and RBP hold these throughout: no displacement reaches there
    mov ebp, IO_APIC
%assign vector 0
%rep 32
    gate vector, unexpected
%assign vector vector + 1
%endrep
    gate 14, page_fault
    gate IPI_VECTOR, ipi
    gate IPI_X2APIC_VECTOR, ipi_x2apic
    gate TIMER_VECTOR, timer
    gate 0xFF, ignored
    lidt [idt_pointer]
    mov al, 0xFF                       ; no interrupts of the PICs
    out 0x21, al
    out 0xA1, al
    mov dx, COM1 + 3
    mov al, 3                          ; eight data bits
    out dx, al
    mov dword [r13 + 0xF0], 0x1FF
    mov dword [r13 + 0x80], 0
    mov dword [r13 + 0x3E0], 0xB ; the timer counts every tick
    mov eax, 1
    cpuid
    mov [features], ecx

    bench "empty"
    operation
    done
    mov rdi, [results_end]
    mov eax, [rdi - 8]
    mov [measuring], eax
    mov qword [results_end], results

; --- Instructions

    bench "cpuid"
        xor eax, eax
    operation
        cpuid
    done

    xor eax, eax
    cpuid
    cmp ebx, 'Auth'                    ; enticAMD
    je .amd
    bench "hypercall"
    operation
        vmcall
    done
    jmp .hypercall_done
.amd:
    bench "hypercall"
    operation
        vmmcall
    done
.hypercall_done:

    bench "rdmsr"
        mov ecx, 0x1B                  ; IA32_APIC_BASE
    operation
        rdmsr
    done

    bench "wrmsr"
        mov ecx, 0x1B
        rdmsr
    operation
        wrmsr
    done

    test dword [features], 1 << 26
    jz .no_xsave
    mov rax, cr4
    or eax, 1 << 18                    ; OSXSAVE
    mov cr4, rax
    bench "xsetbv"
        xor ecx, ecx
        xgetbv
    operation
        xsetbv
    done
.no_xsave:

; --- Ports

    bench "in.pic"
    operation
        in al, 0x21
    done

    bench "out.pic"
        mov al, 0xFF
    operation
        out 0x21, al
    done

    bench "in.pit"
    operation
        in al, 0x42
    done

    bench "in.uart"
        mov dx, COM1 + 5
    operation
        in al, dx
    done

    bench "out.uart"
        mov dx, SCRATCH
    operation
        out dx, al
    done

    bench "in.nothing"
        mov dx, 0x300
    operation
        in al, dx
    done

    bench "outsb.16"
        mov dx, SCRATCH
        mov esi, start
        mov ecx, 16
    operation
        rep outsb
    done

    bench "insb.16"
        mov dx, SCRATCH
        mov edi, UNTOUCHED - 4096
        mov ecx, 16
    operation
        rep insb
    done

; --- Memory

    bench "mmio.io_apic.read"
        mov dword [rbp], 1     ; selects the version
    operation
        mov eax, [rbp + 0x10]
    done

    bench "mmio.io_apic.write"
    operation
        mov dword [rbp], 1
    done

    bench "mmio.hole.read"
        mov ebx, HOLE
    operation
        mov eax, [rbx]
    done

    bench "mmio.hole.write"
        mov ebx, HOLE
    operation
        mov [rbx], eax
    done

    bench "mmio.movsb.16"
        mov esi, HOLE
        mov edi, UNTOUCHED - 4096
        mov ecx, 16
    operation
        rep movsb
    done

    bench "mmio.stosb.16"
        mov edi, HOLE
        mov ecx, 16
    operation
        rep stosb
    done

    mov r12d, UNTOUCHED
    bench "touch"
    operation
        mov [r12], al
    rdtsc
    sub eax, r14d
    sub eax, [measuring]
    add r12d, 4096
    sample %$next, %$name
%pop

    mov r12, UNMAPPED
    bench "page_fault"
        mov r11d, %$resume
    operation
        mov al, [r12]
%$resume:
    done

; --- What an exit should not be needed for

    bench "cr0.wp.twice"
        mov rbx, cr0
        mov rcx, rbx
        xor ecx, 1 << 16
    operation
        mov cr0, rcx
        mov cr0, rbx
    done

    bench "cr4.pge.twice"
        mov rbx, cr4
        mov rcx, rbx
        xor ecx, 1 << 7
    operation
        mov cr4, rcx
        mov cr4, rbx
    done

    bench "cr3"
        mov rbx, cr3
    operation
        mov cr3, rbx
    done

    bench "dr7"
        mov ebx, 0x400
    operation
        mov dr7, rbx
    done

    bench "wrmsr.fs_base"
        mov ecx, 0xC0000100
        xor eax, eax
        xor edx, edx
    operation
        wrmsr
    done

    bench "rdtsc"
    operation
        rdtsc
    done

    bench "pause"
    operation
        pause
    done

    bench "invlpg"
    operation
        invlpg [UNTOUCHED]
    done

    bench "cr8"
        xor ebx, ebx
    operation
        mov cr8, rbx
    done

; --- The local APIC in xAPIC mode

    bench "xapic.read"
    operation
        mov eax, [r13 + 0xF0] ; SVR
    done

    bench "xapic.tpr"
    operation
        mov dword [r13 + 0x80], 0
    done

    bench "xapic.eoi"
    operation
        mov dword [r13 + 0xB0], 0
    done

    bench "xapic.timer"
        mov ebx, 0x40000000
    operation
        mov [r13 + 0x380], ebx
    done
    mov dword [r13 + 0x380], 0

    sti
    bench "xapic.self_ipi"
        mov byte [struck], 0
        mov ebx, 0x44000 | IPI_VECTOR  ; to itself, fixed, asserted
    operation
        mov [r13 + 0x300], ebx
%$wait:
        cmp byte [struck], 0
        je %$wait
    done
    cli

; --- Timer interrupts, by a deadline in TSC ticks

    test dword [features], 1 << 24
    jz .no_deadline
    mov dword [r13 + 0x320], 0x40000 | TIMER_VECTOR

    bench "tsc_deadline"
        mov ecx, 0x6E0
        mov eax, -1
        mov edx, 0x7FFF
    operation
        wrmsr
    done

    ; From the deadline to the handler's first instructions, which are taken off.
    bench "timer.hlt"
        call arm
        sti
        hlt
        cli
        mov eax, [struck_at]
        sub eax, ebx
        sub eax, HANDLER_READS
        mov dword [r13 + 0xB0], 0
        sample %$next, %$name
%pop

    ; What a loop loses to one interrupt: the longest gap between its readings of the TSC, less an ordinary one.
    bench "timer.spin"
        mov byte [struck], 0
        call arm
        xor ebx, ebx                   ; the longest
        mov r11d, -1                   ; the shortest
        xor r12d, r12d                 ; turns behind the interrupt
        sti
        rdtsc
        mov r14d, eax
%$spin:
        rdtsc
        mov ecx, eax
        sub eax, r14d
        mov r14d, ecx
        cmp eax, ebx
        cmova ebx, eax
        cmp eax, r11d
        cmovb r11d, eax
        movzx ecx, byte [struck]
        add r12d, ecx
        cmp r12d, 2
        jb %$spin
        cli
        mov dword [r13 + 0xB0], 0
        mov eax, ebx
        sub eax, r11d
        sample %$next, %$name
%pop
.no_deadline:

; --- The same in x2APIC mode

    test dword [features], 1 << 21
    jz .no_x2apic
    mov ecx, 0x1B
    rdmsr
    or eax, 0xC00
    wrmsr

    bench "x2apic.read"
        mov ecx, 0x80F
    operation
        rdmsr
    done

    bench "x2apic.tpr"
        mov ecx, 0x808
        xor eax, eax
        xor edx, edx
    operation
        wrmsr
    done

    bench "x2apic.eoi"
        mov ecx, 0x80B
        xor eax, eax
        xor edx, edx
    operation
        wrmsr
    done

    bench "x2apic.timer"
        mov ecx, 0x838
        mov eax, 0x40000000
        xor edx, edx
    operation
        wrmsr
    done
    mov ecx, 0x838
    xor eax, eax
    xor edx, edx
    wrmsr

    sti
    bench "x2apic.self_ipi"
        mov byte [struck], 0
        mov ecx, 0x83F
        mov eax, IPI_X2APIC_VECTOR
        xor edx, edx
    operation
        wrmsr
%$wait:
        cmp byte [struck], 0
        je %$wait
    done
    cli
.no_x2apic:

; --- What the host takes from a guest that does nothing of the above: twenty million instructions, once.

    rdtsc
    mov r14d, eax
    mov ecx, 10000000
.spin:
    dec ecx
    jnz .spin
    rdtsc
    sub eax, r14d
    sub eax, 20000000 + 3
    mov edx, eax
    mov esi, .lost
    call note

    call report
    mov esi, .end
    call print
    mov dx, 0x604
    mov ax, (5 << 10) | (1 << 13)      ; SLP_TYP 5, SLP_EN
    out dx, ax
    jmp $
.lost: db "spin.lost", 0
.end: db "BENCH-END", 13, 10, 0

; Arms the timer; EBX: its deadline's lower half.
arm:
    mov byte [struck], 0
    rdtsc
    shl rdx, 32
    or rax, rdx
    add rax, 20000
    mov ebx, eax
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6E0
    wrmsr
    ret

HANDLER_READS equ 3                    ; instructions of `timer` up to its RDTSC

timer:
    push rax
    push rdx
    rdtsc
    mov [struck_at], eax
    mov byte [struck], 1
    pop rdx
    pop rax
    iretq

ipi:
    mov dword [r13 + 0xB0], 0
    mov byte [struck], 1
    iretq

ipi_x2apic:
    mov ecx, 0x80B
    xor eax, eax
    xor edx, edx
    wrmsr
    mov byte [struck], 1
ignored:
    iretq

page_fault:
    mov [rsp + 8], r11                 ; where to go on
    add rsp, 8
    iretq

unexpected:
    mov esi, .text
    call print
    cli
    hlt
    jmp $
.text: db "BENCH-FAILED: an exception", 13, 10, 0

idt_pointer:
    dw 256 * 16 - 1
    dq idt
features: dd 0
measuring: dd 0
struck_at: dd 0
struck: db 0
align 8
results_end: dq results
