; Echoes what is typed at its serial port, polling it; powers off by ACPI when it reads a Q.
%include "guest.inc"
start:
    begin
    say "echo: ready"
.next:
    mov dx, COM1 + 5
    in al, dx
    test al, 1
    jz .next
    mov dx, COM1
    in al, dx
    cmp al, 'Q'
    je .off
    mov ah, al
    mov dx, COM1 + 5
.wait:
    in al, dx
    test al, 0x20                      ; a byte written on top of another would be lost
    jz .wait
    mov dx, COM1
    mov al, ah
    out dx, al
    jmp .next
.off:
    say "echo: powering off"
    mov dx, 0x604
    mov ax, (5 << 10) | (1 << 13)
    out dx, ax
    say "echo: survived it"
    jmp $
end_of_guest:
