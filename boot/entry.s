# From the boot loader (32-bit protected mode, paging off) to long mode and `rust_entry`.
#
# Two protocols end here. Both leave a pointer in ebx; eax tells them apart:
#   PVH (Xen's x86/HVM direct boot ABI)   ebx = hvm_start_info
#   Multiboot2                            ebx = boot information, eax = 0x36d76289
# `rust_entry(protocol, info)` gets 0 or 1 for the protocol.

.section .multiboot2, "a"
.align 8
multiboot2_header:
    .long 0xe85250d6                     # magic
    .long 0                              # architecture: i386, protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + 0 + (multiboot2_header_end - multiboot2_header))
    # Modules page-aligned, so that the guests' archive never shares a page with anything else.
    .align 8
    .short 6, 0
    .long 8
    .align 8
    .short 0, 0
    .long 8
multiboot2_header_end:

.section .text.boot, "ax"
.code32
.global pvh_entry
pvh_entry:
    cli
    xor %edi, %edi
    jmp to_long_mode

.global multiboot2_entry
multiboot2_entry:
    cli
    cmp $0x36d76289, %eax
    jne unknown_loader
    mov $1, %edi

to_long_mode:
    mov $boot_stack_top, %esp
    mov %ebx, %esi                       # second argument: the information structure

    # Identity map of the first 4 GiB in 2 MiB pages, until machine::paging builds the real tables.
    mov $early_pdpt + 3, %eax
    mov %eax, early_pml4
    mov $early_pd + 3, %eax
    mov $early_pdpt, %ebx
    mov $4, %ecx
1:  mov %eax, (%ebx)
    add $4096, %eax
    add $8, %ebx
    loop 1b
    mov $0x83, %eax                      # present, writable, 2 MiB
    mov $early_pd, %ebx
    mov $2048, %ecx
2:  mov %eax, (%ebx)
    add $0x200000, %eax
    add $8, %ebx
    loop 2b

    mov $early_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax                      # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $0xc0000080, %ecx                # IA32_EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    and $~0x4, %eax                      # EM off
    or $0x80010023, %eax                 # PG, WP, NE, MP, PE
    mov %eax, %cr0
    lgdt early_gdtr
    ljmp $8, $3f

unknown_loader:                          # neither protocol: nothing can be printed yet
    hlt
    jmp unknown_loader

.code64
3:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %edi, %edi
    mov %esi, %esi
    xor %ebp, %ebp
    call rust_entry
4:  cli
    hlt
    jmp 4b

.section .rodata.boot, "a"
.align 8
early_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
early_gdtr:
    .short 23
    .long early_gdt

.section .bss.boot, "aw", @nobits
.align 4096
early_pml4: .skip 4096
early_pdpt: .skip 4096
early_pd:   .skip 4 * 4096
