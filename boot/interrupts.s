# One stub of 16 bytes for each vector: pushes a zero where the CPU pushes no error code, then the vector.
.altmacro
.macro interrupt_stub vector
    .balign 16
    .if !(\vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30)
        push 0
    .endif
    push \vector
    jmp interrupt_common
.endm

.section .text
.balign 16
.global interrupt_stubs
interrupt_stubs:
.set vector, 0
.rept 256
    interrupt_stub %vector
    .set vector, vector + 1
.endr

interrupt_common:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    mov rdi, rsp
    cld
    # Seven words of the CPU and the stub, nine registers: the stack is at 16n here, as the ABI wants it.
    call interrupt_entry
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
.noaltmacro
