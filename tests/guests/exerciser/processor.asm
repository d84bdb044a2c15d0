; The way into and out of a step, the events, and the start of a processor. processor.hpp has the block's layout.
%include "tests/guests/runtime/events.inc"

extern processor_main, unexpected_event_of, tolerates_interrupts, image_begin, image_end
global enter_processor, run_step, event_stubs, trampoline, trampoline_end, event_table

BLOCK equ 0x40000
FIRST_BLOCK equ 0x440000
TRAMPOLINE equ 0x8000
TABLES equ 0x1000                       ; PML4
DESCRIPTORS equ 0x9000
TASK_STATE equ 0x9800
STACK equ 0x1FF40
ACTIVE equ 0
SAVED_RSP equ 8
STRAYS equ 16
OUTCOME equ 24

section .text
; An AP: real mode, then its own page tables, by the number that CPUID tells.
bits 16
trampoline:
    cli
    cld
    xor ax, ax
    mov ds, ax
    o32 lgdt [TRAMPOLINE + .table - trampoline]
    mov eax, cr0
    and eax, ~0x6000000C                ; CD, NW, TS, EM
    or eax, 1
    mov cr0, eax
    jmp dword 0x08:TRAMPOLINE + .protected - trampoline
align 8
.descriptors:
    dq 0
    dq 0x00CF9B000000FFFF
    dq 0x00CF93000000FFFF
    dq 0x00AF9B000000FFFF               ; 18: 64-bit code
.table:
    dw 31
    dd TRAMPOLINE + .descriptors - trampoline
bits 32
.protected:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, 1
    cpuid
    shr ebx, 24
    shl ebx, 18
    add ebx, FIRST_BLOCK
    mov eax, 0x620                      ; PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    lea eax, [ebx + TABLES]
    mov cr3, eax
    mov ecx, 0xC0000080
    xor edx, edx
    mov eax, 0x100                      ; LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000022                  ; PG, NE, MP
    mov cr0, eax
    jmp 0x18:enter
trampoline_end:

; void enter_processor(Processor*)
bits 64
enter_processor:
    mov ebx, edi
enter:
    mov ebx, ebx
    lea rax, [rbx + TABLES]
    mov cr3, rax
    lea rsp, [rbx + STACK]
    sub rsp, 16
    mov word [rsp + 6], 0x1FF
    lea rax, [rbx + DESCRIPTORS]
    mov [rsp + 8], rax
    lgdt [rsp + 6]
    mov word [rsp + 6], 256 * 16 - 1
    mov rax, event_table
    mov [rsp + 8], rax
    lidt [rsp + 6]
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    and byte [rbx + DESCRIPTORS + TASK + 5], ~2 ; not busy
    mov eax, TASK
    ltr ax
    mov qword [rbx + ACTIVE], 0
    push CODE64
    push .flat
    retfq
.flat:
    xor ebp, ebp
    mov rdi, rbx
    call processor_main
    ud2

; void run_step(Processor*, const Entry*): as run_probed of the runtime.
run_step:
    push_callers_registers
    mov [rdi + SAVED_RSP], rsp
    mov qword [rdi + ACTIVE], 1
    mov rax, rsi
    enter_code

event:
    push rax
    push rbx
    mov rbx, cr3                        ; its tables are in this processor's block
    and rbx, -BLOCK
    cmp qword [rsp + 16], 1
    jne .not_debug
    mov eax, 0x400                      ; before a watchpoint strikes here
    mov dr7, rax
.not_debug:
    ; An NMI or a watchpoint of the program's own code is over at once.
    cmp qword [rsp + 32], image_begin
    jb .of_step
    cmp qword [rsp + 32], image_end
    jae .of_step
    inc qword [rbx + STRAYS]
    cmp qword [rsp + 16], 0
    je .unexpected
    cmp qword [rsp + 16], 2
    jbe .over
    ; An interrupt, though they are disabled here, is the emulator's fault if it is expected of it.
    cmp qword [rsp + 16], 32
    jb .unexpected
    cmp byte [tolerates_interrupts], 0
    je .unexpected
    mov eax, 0xFEE000B0
    mov dword [rax], 0
.over:
    pop rbx
    pop rax
    add rsp, 16
    iretq
.of_step:
    cld
    cmp qword [rbx + ACTIVE], 0
    je .unexpected
    mov [rbx + OUTCOME + 8], rcx
    mov [rbx + OUTCOME + 16], rdx
    mov [rbx + OUTCOME + 40], rbp
    mov [rbx + OUTCOME + 48], rsi
    mov [rbx + OUTCOME + 56], rdi
    mov rax, [rsp + 8]
    mov [rbx + OUTCOME], rax
    mov rax, [rsp + 32]
    mov [rbx + OUTCOME + 136], rax      ; RIP
    mov rax, [rsp + 48]
    mov [rbx + OUTCOME + 128], rax      ; RFLAGS
    mov rax, [rsp + 16]
    mov [rbx + OUTCOME + 168], rax      ; vector
    mov rax, [rsp + 24]
    mov [rbx + OUTCOME + 176], rax      ; error code
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov qword [rbx + ACTIVE], 0
    leave_event rbx + SAVED_RSP
.unexpected:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov rdi, rbx
    mov rsi, [rsp + 16]
    mov rdx, [rsp + 24]
    mov rcx, [rsp + 32]
    lea rsp, [rbx + STACK]
    call unexpected_event_of
    ud2

align STUB_SIZE
event_stubs:
    stubs_of_events event

section .bss
alignb 16
event_table: resb 256 * 16
