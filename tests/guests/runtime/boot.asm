; From Multiboot's 32-bit entry to guest_main() in 64-bit mode, and the way into and out of probed code.
; Every exception and interrupt ends the probed code and is its result; see runtime.hpp.
%include "tests/guests/runtime/events.inc"

extern guest_main, unexpected_event, image_begin, load_end, image_end
extern boot_state, outcome, run_active, event_hook, ignores_stray_nmi
global start, gdt, idt, task_state, run_probed, page_directories, stack_top, ignore_interrupt, reload_segments

WINDOW equ 0x70000000                   ; below it is the program, from it on what is probed
CODE32 equ 0x18

section .multiboot
bits 32
header:
    dd 0x1BADB002
    dd 0x00010003                       ; pages aligned, memory information, address fields valid
    dd -(0x1BADB002 + 0x00010003)
    dd header, image_begin, load_end, image_end, start

start:
    ; What the machine starts with, before anything is changed: BootState.
    mov [boot_state + 0x00], eax
    mov [boot_state + 0x08], ebx
    mov [boot_state + 0x10], ecx
    mov [boot_state + 0x18], edx
    mov [boot_state + 0x20], esi
    mov [boot_state + 0x28], edi
    mov [boot_state + 0x30], ebp
    mov [boot_state + 0x38], esp
    mov esp, stack_top
    pushfd
    pop eax
    mov [boot_state + 0x40], eax
    mov eax, cr0
    mov [boot_state + 0x48], eax
    mov eax, cr2
    mov [boot_state + 0x50], eax
    mov eax, cr3
    mov [boot_state + 0x58], eax
    mov eax, cr4
    mov [boot_state + 0x60], eax
    cli
    cld

    ; The first 4 GiB at their own addresses in 2 MiB pages, open to ring 3 at the upper levels only.
    mov edi, page_tables
    mov dword [edi], page_tables + 0x1000 + 7
    mov eax, page_directories + 7
    mov edi, page_tables + 0x1000
    mov ecx, 4
.directories:
    mov [edi], eax
    add eax, 0x1000
    add edi, 8
    loop .directories
    mov edi, page_directories
    mov eax, 0x83                       ; present, writable, 2 MiB
    mov ecx, 4 * 512
.pages:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    loop .pages

    mov eax, cr4
    or eax, 0x620                       ; PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, page_tables
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100                       ; LME
    wrmsr
    mov eax, cr0
    and eax, ~0x6000000C                ; CD, NW, TS, EM
    or eax, 0x80000022                  ; PG, NE, MP
    mov cr0, eax
    lgdt [gdt_pointer]
    jmp CODE64:long_mode

bits 64
long_mode:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, stack_top
    ; The interrupt descriptor table: all 256 vectors on the first interrupt stack; INT3 and INTO from ring 3 too.
    mov rdi, idt
    mov rsi, stubs
    xor ecx, ecx
.gate:
    mov rax, rsi
    mov [rdi], ax
    mov word [rdi + 2], CODE64
    mov word [rdi + 4], 0x8E01
    shr rax, 16
    mov [rdi + 6], ax
    shr rax, 16
    mov [rdi + 8], rax
    add rdi, 16
    add rsi, STUB_SIZE
    inc ecx
    cmp ecx, 256
    jb .gate
    mov rax, nmi
    mov [idt + 2 * 16], ax
    shr rax, 16
    mov [idt + 2 * 16 + 6], ax
    mov byte [idt + 2 * 16 + 4], 2
    mov byte [idt + 3 * 16 + 5], 0xEE
    mov byte [idt + 4 * 16 + 5], 0xEE
    lidt [idt_pointer]
    mov qword [task_state + 4], ring0_stack_top
    mov qword [task_state + 0x24], event_stack_top
    mov qword [task_state + 0x2C], nmi_stack_top
    mov word [task_state + 0x66], 0x68  ; no I/O permission bitmap
    mov rax, task_state
    mov [gdt + TASK + 2], ax
    shr rax, 16
    mov [gdt + TASK + 4], al
    mov [gdt + TASK + 7], ah
    mov eax, TASK
    ltr ax
    xor ebp, ebp
    call guest_main
.end:
    hlt
    jmp .end

; void reload_segments(): flat data segments again after code that loaded others.
reload_segments:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    ret

; void run_probed(const Entry*): returns when an event has struck there.
run_probed:
    push_callers_registers
    mov [saved_rsp], rsp
    mov rax, rdi
    mov byte [run_active], 1
    enter_code

; An NMI has a stack of its own, since it may come while another event is looked at. In the program's own code it is
; over at once, if that is wanted.
nmi:
    cmp byte [ignores_stray_nmi], 0
    je .look
    cmp qword [rsp], WINDOW
    jae .look
    iretq
.look:
    push 0
    push 2
event:
    cld
    mov [outcome], rax
    mov [outcome + 8], rcx
    mov [outcome + 16], rdx
    mov [outcome + 24], rbx
    mov [outcome + 40], rbp
    mov [outcome + 48], rsi
    mov [outcome + 56], rdi
    mov [outcome + 64], r8
    mov [outcome + 72], r9
    mov [outcome + 80], r10
    mov [outcome + 88], r11
    mov [outcome + 96], r12
    mov [outcome + 104], r13
    mov [outcome + 112], r14
    mov [outcome + 120], r15
    mov rax, [rsp + 40]
    mov [outcome + 32], rax             ; RSP
    mov rax, [rsp + 32]
    mov [outcome + 128], rax            ; RFLAGS
    mov rax, [rsp + 16]
    mov [outcome + 136], rax            ; RIP
    mov rax, [rsp + 24]
    mov [outcome + 144], rax            ; CS
    mov rax, [rsp + 48]
    mov [outcome + 152], rax            ; SS
    mov rax, [rsp]
    mov [outcome + 168], rax            ; vector
    mov rax, [rsp + 8]
    mov [outcome + 176], rax            ; error code
    mov rax, cr2
    mov [outcome + 184], rax
    mov rax, dr6
    mov [outcome + 192], rax
    mov eax, DATA
    mov ds, eax
    mov es, eax
    ; A hook sees the event first; what it returns true for is over, and the interrupted code goes on.
    mov rax, [event_hook]
    test rax, rax
    jz .ends
    call rax
    test al, al
    jz .ends
    mov rax, [outcome]
    mov rcx, [outcome + 8]
    mov rdx, [outcome + 16]
    mov rsi, [outcome + 48]
    mov rdi, [outcome + 56]
    mov r8, [outcome + 64]
    mov r9, [outcome + 72]
    mov r10, [outcome + 80]
    mov r11, [outcome + 88]
    add rsp, 16
    iretq
.ends:
    cmp byte [run_active], 0
    jne .resume
    mov rsp, stack_top
    call unexpected_event
.resume:
    mov byte [run_active], 0
    leave_event saved_rsp

align STUB_SIZE
stubs:
    stubs_of_events event

section .data
align 16
gdt:
    dq 0
    dq 0x00AF9B000000FFFF               ; 08: 64-bit code
    dq 0x00CF93000000FFFF               ; 10: data
    dq 0x00CF9B000000FFFF               ; 18: 32-bit code
    dq 0x70009B000000FFFF               ; 20: 16-bit code at 70000000h
    dq 0x00AFFB000000FFFF               ; 28: 64-bit code of ring 3
    dq 0x00CFF3000000FFFF               ; 30: data of ring 3
    dq 0x00CFFB000000FFFF               ; 38: 32-bit code of ring 3
    dq 0x0000890000000067, 0            ; 40: the task state
    times 22 dq 0                       ; 50 and up: for probes
gdt_end:
gdt_pointer:
    dw gdt_end - gdt - 1
    dq gdt
idt_pointer:
    dw 256 * 16 - 1
    dq idt

section .bss
alignb 4096
page_tables: resb 2 * 4096              ; PML4, PDPT
page_directories: resb 4 * 4096
idt: resb 256 * 16
task_state: resb 0x68 + 8192 + 8
alignb 16
saved_rsp: resq 1
alignb 4096
resb 32768
stack_top:
resb 8192
event_stack_top:
resb 8192
ring0_stack_top:
resb 8192
nmi_stack_top:
