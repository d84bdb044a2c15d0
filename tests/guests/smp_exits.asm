; What an exit costs while other processors take exits, too. The command line says which operation ("0" to "4") and with
; how many processors ("1" to "9"): all of them repeat it for ever, and the first prints its mean in TSC ticks.
%include "guest.inc"
%include "processors.inc"

STACKS equ 0x300000
ITERATIONS equ 2000
ROUNDS equ 3                           ; of them the best counts
HOLE equ 0xE0000000

operation_number equ 0x200000
online equ 0x200040

; A round of operation %1: its mean in EAX. The operation may use EAX, EBX, ECX and EDX.
%macro measured 1
    rdtsc
    mov ebp, eax
    mov edi, ITERATIONS
%%next:
    %1
    dec edi
    jnz %%next
    rdtsc
    sub eax, ebp
    xor edx, edx
    mov ecx, ITERATIONS
    div ecx
    ret
%endmacro
%macro do_cpuid 0
    cpuid
%endmacro
%macro do_rdmsr 0
    mov ecx, 0x1B
    rdmsr
%endmacro
%macro do_apic 0
    mov dword [APIC + 0x380], 0x40000000 ; arms the timer, masked
%endmacro
%macro do_hole 0
    mov eax, [HOLE]
%endmacro
%macro do_port 0
    in al, 0x21                        ; the 8259's mask: a chip that all processors share
%endmacro

start:
    begin
    cli
    read_digits operation_number
    mask_chips
    mov dword [APIC + 0xF0], 0x1FF
    mov dword [APIC + 0x3E0], 0xB
    mov dword [online], 0
    test ebx, ebx
    jz .all
    start_processors online
.all:
    mov esi, -1
    mov ebx, ROUNDS
.round:
    push ebx
    call [operations_address]
    pop ebx
    cmp eax, esi
    jae .slower
    mov esi, eax
.slower:
    dec ebx
    jnz .round
    mov eax, esi
    call print_number
    jmp .all

    number_printer "smp_exits: "

run_cpuid: measured do_cpuid
run_rdmsr: measured do_rdmsr
run_apic: measured do_apic
run_hole: measured do_hole
run_port: measured do_port

operations: dd run_cpuid, run_rdmsr, run_apic, run_hole, run_port
operations_address: dd chosen

chosen:
    mov eax, [operation_number]
    jmp [operations + 4 * eax]

    processors_begin
    mov eax, 1
    lock xadd [online], eax
    inc eax
    shl eax, 12
    lea esp, [STACKS + eax + 0x1000]
    mov dword [APIC + 0xF0], 0x1FF
    mov dword [APIC + 0x3E0], 0xB
.again:
    call chosen
    jmp .again
end_of_guest:
