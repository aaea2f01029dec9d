# The setup header and the three entries of Linux's boot protocol (Documentation/arch/x86/boot.rst): 16-bit at 0x200
# of the setup, 32-bit at 0 and 64-bit at 0x200 of the loaded code. The hypervisor takes the 64-bit one; the other
# two let the same file run by `qemu -kernel` and GRUB.

.section .setup, "ax"
setup:
.org 0x1f1
    .byte 1                     # setup_sects
    .word 1                     # root_flags
    .long load_paragraphs       # syssize
    .word 0, 0xffff, 0          # ram_size, vid_mode, root_dev
    .word 0xaa55                # boot_flag
    .byte 0xeb, entry16 - 0f    # jump; the second byte also says where the header ends
0:  .ascii "HdrS"
    .word 0x020f                # version
    .long 0                     # realmode_swtch
    .word 0x1000, 0             # start_sys_seg, kernel_version
    .byte 0, 1                  # type_of_loader, loadflags: LOADED_HIGH
    .word 0x8000                # setup_move_size
    .long load_start            # code32_start
    .long 0, 0, 0               # ramdisk_image, ramdisk_size, bootsect_kludge
    .word 0                     # heap_end_ptr
    .byte 0, 0                  # ext_loader_ver, ext_loader_type
    .long 0                     # cmd_line_ptr
    .long 0x7fffffff            # initrd_addr_max
    .long 0x1000                # kernel_alignment
    .byte 0, 12                 # relocatable_kernel: no; min_alignment
    .word 1                     # xloadflags: XLF_KERNEL_64
    .long 2047, 0               # cmdline_size, hardware_subarch
    .quad 0                     # hardware_subarch_data
    .long 0, 0                  # payload_offset, payload_length
    .quad 0                     # setup_data
    .quad load_start            # pref_address
    .long image_size            # init_size
    .long 0, 0                  # handover_offset, kernel_info_offset

.code16
entry16:
    cli
    cld
    xor esi, esi
    mov si, ds
    shl esi, 4                  # the setup itself stands in for the zero page: its e820 table is empty
    lgdt ds:[0x3f8]             # gdt_register, below
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea            # ljmp 0x08:load_start
    .long load_start
    .word 0x08
.org 0x3f8
gdt_register:
    .word 4 * 8 - 1
    .long gdt
.org 0x400

.section .entry, "ax"
.code32
entry32:                        # esi = the zero page
    mov ax, 0x18
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov edi, offset page_tables # PML4, PDPT, four directories of 2 MiB pages: 4 GiB identity
    xor eax, eax
    mov ecx, 6 * 1024
    rep stosd
    mov ebx, offset page_tables
    lea eax, [ebx + 0x1003]
    mov [ebx], eax
    mov ecx, 4
    add eax, 0x1000
    lea edi, [ebx + 0x1000]
2:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    loop 2b
    lea edi, [ebx + 0x2000]
    mov eax, 0x83
    mov ecx, 4 * 512
2:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    loop 2b
    mov cr3, ebx
    mov eax, cr4
    or eax, 0x20                # PAE
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100               # EFER.LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000000          # PG
    mov cr0, eax
    .byte 0xea                  # ljmp 0x10:entry64
    .long entry64
    .word 0x10

.code64
.org 0x200
.global entry64
entry64:                        # rsi = the zero page
    cli
    cld
    lgdt [rip + gdt_register64]
    lea rsp, [rip + stack_top]
    push 0x10
    lea rax, [rip + 2f]
    push rax
    retfq
2:  mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rdi, [rip + bss_start]
    lea rcx, [rip + bss_end]
    sub rcx, rdi
    rep stosb
    mov rdi, rsi
    xor ebp, ebp
    call {main}
2:  hlt
    jmp 2b

# One stub a vector: vector and error code (0 where the CPU pushes none, SDM 3A table 6-1) in one layout.
.set vector, 0
.macro trap_stub
    .balign 16
    .if (vector == 8) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30) || ((vector >= 10) && (vector <= 14))
    .else
    push 0
    .endif
    push vector
    jmp trap_common
    .set vector, vector + 1
.endm
.balign 16
.global trap_stubs
trap_stubs:
.rept 48
    trap_stub
.endr

trap_common:
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
    call {trap}
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

.section .rodata, "a"
.balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    # 0x08 32-bit code
    .quad 0x00af9b000000ffff    # 0x10 64-bit code
    .quad 0x00cf93000000ffff    # 0x18 data
gdt_register64:
    .word 4 * 8 - 1
    .quad gdt
.text
