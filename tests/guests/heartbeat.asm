; A heart: its PIT interrupts 100 times a second; each tenth interrupt prints a line
;     beat NNNNNNNN tsc HHHHHHHHHHHHHHHH gap HHHHHHHHHHHHHHHH
; all hexadecimal: the number of the beat from 1 on, the TSC at it, and the longest time in TSC ticks between two
; interrupts since the last line. In between it halts. A beat that comes late shows, and so does one that is lost.
%include "guest.inc"

DIVISOR equ 11932                      ; 1193182 Hz / 11932 = 99.998 Hz
CODE equ 0x08
DATA equ 0x10

start:
    begin
    lgdt [gdt_register]                ; Multiboot leaves the GDT undefined
    jmp CODE:.flat
.flat:
    mov ax, DATA
    mov ds, ax
    mov es, ax
    mov ss, ax

    mov eax, tick
    mov [idt + 0x20 * 8], ax
    mov word [idt + 0x20 * 8 + 2], CODE
    mov word [idt + 0x20 * 8 + 4], 0x8E00  ; present, interrupt gate
    shr eax, 16
    mov [idt + 0x20 * 8 + 6], ax
    lidt [idt_register]

    mov al, 0x11                       ; both PICs: vectors 20h and 28h, the PIT's line only
    out 0x20, al
    out 0xA0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xA1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xA1, al
    mov al, 1
    out 0x21, al
    out 0xA1, al
    mov al, 0xFE
    out 0x21, al
    mov al, 0xFF
    out 0xA1, al

    mov al, 0x34                       ; counter 0, both bytes, mode 2
    out 0x43, al
    mov al, DIVISOR & 0xFF
    out 0x40, al
    mov al, DIVISOR >> 8
    out 0x40, al

    say "heart: beating"
    rdtsc
    mov [last], eax
    mov [last + 4], edx
    sti
.rest:
    hlt
    jmp .rest

tick:
    pushad
    mov al, 0x20                       ; end of interrupt
    out 0x20, al
    rdtsc
    mov ebx, eax
    mov ecx, edx
    xchg [last], eax
    xchg [last + 4], edx
    mov esi, ebx                       ; EDI:ESI = the time since the last one
    mov edi, ecx
    sub esi, eax
    sbb edi, edx
    cmp edi, [gap + 4]
    jb .counted
    ja .longer
    cmp esi, [gap]
    jbe .counted
.longer:
    mov [gap], esi
    mov [gap + 4], edi
.counted:
    inc dword [interrupts]
    cmp dword [interrupts], 10
    jb .done
    mov dword [interrupts], 0
    inc dword [beats]

    mov esi, beat_text
    call print
    mov eax, [beats]
    call print_hexadecimal
    mov esi, tsc_text
    call print
    mov eax, ecx
    call print_hexadecimal
    mov eax, ebx
    call print_hexadecimal
    mov esi, gap_text
    call print
    mov eax, [gap + 4]
    call print_hexadecimal
    mov eax, [gap]
    call print_hexadecimal
    mov esi, end_text
    call print
    mov dword [gap], 0
    mov dword [gap + 4], 0
.done:
    popad
    iret

; Prints EAX as eight hexadecimal digits.
print_hexadecimal:
    pushad
    mov ecx, 8
    mov edi, digits
.next:
    rol eax, 4
    mov ebx, eax
    and ebx, 15
    mov bl, [hexadecimal + ebx]
    mov [edi], bl
    inc edi
    loop .next
    mov esi, digits
    call print
    popad
    ret

beat_text: db "beat ", 0
tsc_text: db " tsc ", 0
gap_text: db " gap ", 0
end_text: db 13, 10, 0
hexadecimal: db "0123456789abcdef"
digits: db "00000000", 0

align 8
last: dq 0
gap: dq 0
interrupts: dd 0
beats: dd 0
gdt:
    dq 0
    dq 0x00CF9A000000FFFF
    dq 0x00CF92000000FFFF
gdt_register:
    dw $ - gdt - 1
    dd gdt
idt_register:
    dw 0x21 * 8 - 1
    dd idt
align 8
idt: times 0x21 dq 0
end_of_guest:
