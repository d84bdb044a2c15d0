; How long it takes until other processors have answered: the first sends them an interrupt and waits for their handlers.
; The command line says what ("0": one other that spins, "1": one that halts, "2": all others, which spin, and have to
; forget a translation) and how many processors there are ("2" to "9"). Prints each sample in TSC ticks.
%include "guest.inc"
%include "processors.inc"

STACKS equ 0x300000
TABLES equ 0x400000                    ; a page directory, of pages of 4 MiB
SAMPLES equ 0x500000
SAMPLE_COUNT equ 256
PAUSE_TICKS equ 20000                  ; before each: the others have gone to sleep
VECTOR equ 0x50
TO_SECOND equ 0x00004000 | VECTOR
TO_ALL_OTHERS equ 0x000C4000 | VECTOR

operation_number equ 0x200000
answers equ 0x200040
online equ 0x200080

%macro enable_paging 0
    mov eax, TABLES
    mov cr3, eax
    mov eax, cr4
    or al, 0x10                        ; PSE
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
%endmacro

start:
    begin
    cli
    read_digits operation_number
    mask_chips
    mov edi, TABLES
    mov eax, 0x83
.entry:
    stosd
    add eax, 0x400000
    cmp edi, TABLES + 4096
    jne .entry
    mov dword [APIC + 0xF0], 0x1FF
    mov dword [online], 0
    start_processors online
    enable_paging
    mov dword [APIC + 0x310], 1 << 24
    cmp dword [operation_number], 2
    je .shootdown
    mov ebx, 1                         ; answers to wait for
    mov ebp, TO_SECOND
    jmp .measure
.shootdown:
    mov ebp, TO_ALL_OTHERS
.measure:
    mov edi, SAMPLES
.sample:
    mov dword [answers], 0
    rdtsc
    lea ecx, [eax + PAUSE_TICKS]
.settle:
    rdtsc
    sub eax, ecx
    js .settle
    rdtsc
    mov ecx, eax
    mov [APIC + 0x300], ebp
.wait:
    cmp [answers], ebx
    jne .wait
    rdtsc
    sub eax, ecx
    stosd
    cmp edi, SAMPLES + 4 * SAMPLE_COUNT
    jne .sample
    mov ebx, SAMPLES
.print:
    mov eax, [ebx]
    call print_number
    add ebx, 4
    cmp ebx, SAMPLES + 4 * SAMPLE_COUNT
    jne .print
    say "smp_latency: end"
    hlt

    number_printer "sample "

    processors_begin
    mov eax, 1
    lock xadd [online], eax
    inc eax
    shl eax, 12
    lea esp, [STACKS + eax + 0x1000]
    enable_paging
    lidt [interrupts_table]
    mov dword [APIC + 0xF0], 0x1FF
    sti
    cmp dword [operation_number], 1
    je .sleep
.spin:
    pause
    jmp .spin
.sleep:
    hlt
    jmp .sleep

handler:
    cmp dword [operation_number], 2
    jne .answer
    invlpg [TABLES]
.answer:
    lock inc dword [answers]
    mov dword [APIC + 0xB0], 0
    iretd

align 8
interrupts:
    times VECTOR dq 0
    dw handler - header, 0x08, 0x8E00, 0x10   ; the guest is at 1 MiB
interrupts_end:
interrupts_table:
    dw interrupts_end - interrupts - 1
    dd interrupts
end_of_guest:
