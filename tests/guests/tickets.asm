; vCPUs, as many as CPUID says, that hand a lock to each other, first come, first served: every hand-over waits for the one vCPU whose turn
; it is, so whenever that one is not on a core, the others turn in vain. hand_overs counts; it is at a fixed address for
; the test to read.
%include "guest.inc"

TRAMPOLINE equ 0x8000                  ; below 1 MiB: where APs start
APIC_SPURIOUS equ 0xFEE000F0
APIC_COMMAND equ 0xFEE00300
ALL_BUT_SELF_INIT equ 0x000C4500
ALL_BUT_SELF_STARTUP equ 0x000C4600 | TRAMPOLINE >> 12

; A cache line each.
hand_overs equ 0x200000                ; 64 bits
next_ticket equ 0x200040
now_serving equ 0x200080
online equ 0x2000C0
processors equ 0x200100

start:
    begin
    cli
    mov al, 0xFF                       ; no chip interrupts them
    out 0x21, al
    out 0xA1, al
    mov esi, trampoline
    mov edi, TRAMPOLINE
    mov ecx, trampoline_end - trampoline
    cld
    rep movsb
    mov eax, 1
    cpuid
    shr ebx, 16
    movzx ebx, bl                      ; leaf 1, EBX[23:16]: logical processors of the package
    mov [processors], ebx
    dec ebx
    mov dword [APIC_SPURIOUS], 0x1FF
    mov dword [APIC_COMMAND], ALL_BUT_SELF_INIT
    mov dword [APIC_COMMAND], ALL_BUT_SELF_STARTUP
.wait:
    pause
    cmp [online], ebx
    jne .wait
    say "tickets: all vCPUs take turns"
    inc dword [online]

take_turns:
    mov eax, [processors]
    cmp [online], eax
    jne take_turns
    sti
.again:
    mov eax, 1
    lock xadd [next_ticket], eax
.wait:
    cmp [now_serving], eax
    je .mine
    pause
    jmp .wait
.mine:
    add dword [hand_overs], 1
    adc dword [hand_overs + 4], 0
    inc dword [now_serving]
    jmp .again

align 8
descriptors:
    dq 0
    dq 0x00CF9B000000FFFF              ; 08h: code, flat
    dq 0x00CF93000000FFFF              ; 10h: data, flat
descriptors_end:

bits 16
trampoline:
    cli
    xor ax, ax
    mov ds, ax
    o32 lgdt [TRAMPOLINE + table - trampoline]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 0x08:processor
table:
    dw descriptors_end - descriptors - 1
    dd descriptors
trampoline_end:

bits 32
processor:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    lock inc dword [online]
    jmp take_turns
end_of_guest:
