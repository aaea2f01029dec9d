# Instructions that a hypervisor intercepts, or that must not exist for a guest. Each is a function of its own, 32 bytes
# from the last, that may use the registers a function may use, and the 4 KiB at `wild_scratch`.

.macro try
    .balign 32, 0xcc
.endm
.macro pointer              # rdi = scratch
    lea rdi, [rip + wild_scratch]
.endm

.section .text.wild, "ax"
.balign 32
.global wild_first
wild_first:
# VMX and the other ways to another mode
try; vmcall; ret
try; pointer; vmxon [rdi]; ret
try; vmxoff; ret
try; pointer; vmclear [rdi]; ret
try; pointer; vmptrld [rdi]; ret
try; pointer; vmptrst [rdi]; ret
try; xor eax, eax; vmread rcx, rax; ret
try; xor eax, eax; vmwrite rax, rcx; ret
try; vmlaunch; ret
try; vmresume; ret
try; xor eax, eax; xor ecx, ecx; vmfunc; ret
try; pointer; mov eax, 2; invept rax, [rdi]; ret
try; pointer; mov eax, 2; invvpid rax, [rdi]; ret
try; pointer; mov eax, 2; invpcid rax, [rdi]; ret
try; pointer; mov eax, 9; invpcid rax, [rdi]; ret
try; .byte 0x0f, 0x01, 0xd9; ret            # vmmcall
try; .byte 0x0f, 0x01, 0xd8; ret            # vmrun
try; .byte 0x0f, 0x37; ret                  # getsec
try; .byte 0x0f, 0xaa; ret                  # rsm
try; xor eax, eax; .byte 0x0f, 0x01, 0xcf; ret   # encls
try; xor eax, eax; .byte 0x0f, 0x01, 0xd7; ret   # enclu
try; xor eax, eax; .byte 0x0f, 0x01, 0xc5; ret   # pconfig
# undefined ones
try; .byte 0x0f, 0xff, 0xc0; ret            # ud0
try; .byte 0x0f, 0xb9, 0xc0; ret            # ud1
try; ud2; ret
try; .byte 0xce; ret                        # into
try; .byte 0xf0, 0x90; ret                  # lock nop
try; .byte 0x8e, 0xc8; ret                  # mov cs, ax
try; .byte 0x0f, 0x20, 0xc8; ret            # mov rax, cr1
try; .byte 0x0f, 0x22, 0xe8; ret            # mov cr5, rax
try; .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90; ret
# waiting, time, counters, randomness
try; pointer; mov rax, rdi; xor ecx, ecx; xor edx, edx; monitor; ret
try; mov ecx, 0xff; mwait; ret
try; xor eax, eax; xor edx, edx; .byte 0x66, 0x0f, 0xae, 0xf1; ret     # tpause ecx
try; pointer; .byte 0xf3, 0x0f, 0xae, 0xf7; ret                        # umonitor rdi
try; pause; ret
try; xor ecx, ecx; rdpmc; ret
try; mov ecx, 0x12345678; rdpmc; ret
try; rdtsc; ret
try; rdtscp; ret
try; .byte 0xf3, 0x0f, 0xc7, 0xf8; ret      # rdpid rax
try; rdrand rax; ret
try; rdseed rax; ret
# caches and translations
try; invd; ret
try; wbinvd; ret
try; .byte 0xf3, 0x0f, 0x09; ret            # wbnoinvd
try; pointer; invlpg [rdi]; ret
try; mov rdi, 0x8000000000000000; invlpg [rdi]; ret
try; .byte 0x0f, 0x01, 0xe8; ret            # serialize
# control and debug registers
try; clts; ret
try; smsw ax; lmsw ax; ret
try; mov rax, cr8; mov cr8, rax; ret
try; mov eax, 0x10; mov cr8, rax; ret
try; mov rax, dr7; mov dr7, rax; ret
try; mov rax, 0x100000400; mov dr7, rax; ret
try; .byte 0x0f, 0x21, 0xe0; ret            # mov rax, dr4
try; mov rax, dr6; mov dr6, rax; ret
# descriptor tables
try; pointer; sgdt [rdi]; lgdt [rdi]; ret
try; pointer; sidt [rdi]; lidt [rdi]; ret
try; pointer; mov byte ptr [rdi + 9], 0x80; mov byte ptr [rdi + 8], 1; lgdt [rdi]; ret
try; pointer; lidt [rdi]; ret
try; sldt ax; str ax; ret
try; mov eax, 0xfff8; lldt ax; ret
try; mov eax, 0xfff8; ltr ax; ret
# far transfers
try; int3; ret
try; .byte 0xf1; ret                        # int1
try; int 0x80; ret
try; push 0; push 0; push 2; push 0xfff8; push 0; iretq
try; push 0; push 0; retfq
try; mov rcx, 0x800000000000; sysretq
# state that CR4 or CPUID hides
try; xor ecx, ecx; xgetbv; ret
try; mov ecx, 1; xgetbv; ret
try; pointer; xor eax, eax; xor edx, edx; xsave [rdi]; ret
try; pointer; xor eax, eax; xor edx, edx; xrstor [rdi]; ret
try; pointer; xor eax, eax; xor edx, edx; .byte 0x0f, 0xc7, 0x2f; ret  # xsaves [rdi]
try; xor ecx, ecx; .byte 0x0f, 0x01, 0xee; ret                         # rdpkru
try; xor eax, eax; xor ecx, ecx; xor edx, edx; .byte 0x0f, 0x01, 0xef; ret  # wrpkru
try; rdfsbase rax; wrfsbase rax; ret
try; swapgs; swapgs; ret
try; movaps xmm0, xmm0; ret
try; fninit; ret
# string I/O
try; pointer; mov edx, 0x80; mov ecx, 4; rep insb; ret
try; pointer; mov rsi, rdi; mov edx, 0x80; mov ecx, 4; rep outsb; ret
try; pointer; mov edx, 0x80; insd; ret
try; pointer; mov rsi, rdi; mov edx, 0x80; outsw; ret
try; mov rdi, 0x7fff00000000; mov edx, 0x80; insb; ret
.balign 32, 0xcc
.global wild_last
wild_last:

.section .bss.wild, "aw", @nobits
.balign 4096
wild_scratch:
    .skip 4096
.text
