//! The world switch.

use super::{fields::INSTRUCTION_ERROR, vmcs::Vmcs};

/// The general registers that the VMCS does not hold, in the order of their numbers in instructions and exit
/// qualifications; slot 4 (RSP) is in the VMCS and unused here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, (RSP), RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// What HOST_RSP of this guest's VMCS holds, to spare the VMWRITE: nested, KVM's shadow VMCS has not this field, and each
    /// write would be an exit to it.
    host_rsp: u64,
}

impl Registers {
    /// These general registers, for a VMCS of which nothing is known.
    pub fn new(general: [u64; 16]) -> Self {
        Self { general, host_rsp: 0 }
    }
}

/// Numbers of general registers.
#[allow(missing_docs)]
pub mod register {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RSI: usize = 6;
}

/// Enters the guest of `vmcs` and comes back at its next exit.
///
/// # Errors
/// The VM-instruction error (SDM 31.4) when VMLAUNCH or VMRESUME itself failed.
#[inline]
pub fn run(vmcs: &mut Vmcs, registers: &mut Registers) -> Result<(), u64> {
    vmcs.make_current();
    // SAFETY: a VMCS is current and its host state is what `Vcpu` set; the guest reaches only what EPT maps for it.
    let failed = unsafe { switch(registers, u64::from(vmcs.launched())) };
    if failed != 0 {
        return Err(vmcs.read(INSTRUCTION_ERROR));
    }
    vmcs.set_launched();
    Ok(())
}

/// Loads the guest's registers, enters it, and stores them again at the exit. Returns 0 after an exit and 1 when the
/// entry failed. The callee-saved registers are kept; vector registers belong to the guest, and this program, built
/// for a soft-float target, never touches them.
///
/// HOST_RSP is kept at this frame's: the exit comes back to it. HOST_RIP is [`exit_address`].
///
/// # Safety
/// A VMCS is current whose host state is this program's.
#[unsafe(naked)]
unsafe extern "sysv64" fn switch(registers: *mut Registers, launched: u64) -> u64 {
    core::arch::naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "push rdi",
        "cmp [rdi + 0x80], rsp",
        "je 5f",
        "mov [rdi + 0x80], rsp",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "5: test rsi, rsi",
        "mov rax, [rdi + 0x00]",
        "mov rcx, [rdi + 0x08]",
        "mov rdx, [rdi + 0x10]",
        "mov rbx, [rdi + 0x18]",
        "mov rbp, [rdi + 0x28]",
        "mov rsi, [rdi + 0x30]",
        "mov r8,  [rdi + 0x40]",
        "mov r9,  [rdi + 0x48]",
        "mov r10, [rdi + 0x50]",
        "mov r11, [rdi + 0x58]",
        "mov r12, [rdi + 0x60]",
        "mov r13, [rdi + 0x68]",
        "mov r14, [rdi + 0x70]",
        "mov r15, [rdi + 0x78]",
        "mov rdi, [rdi + 0x38]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2: vmresume",
        // Only a failed entry comes here: RSP is as it was, the guest's registers are dropped.
        "3: add rsp, 8",
        "mov eax, 1",
        "jmp 4f",
        ".global vmx_exit",
        "vmx_exit:",
        "xchg rdi, [rsp]",
        "mov [rdi + 0x00], rax",
        "mov [rdi + 0x08], rcx",
        "mov [rdi + 0x10], rdx",
        "mov [rdi + 0x18], rbx",
        "mov [rdi + 0x28], rbp",
        "mov [rdi + 0x30], rsi",
        "mov [rdi + 0x40], r8",
        "mov [rdi + 0x48], r9",
        "mov [rdi + 0x50], r10",
        "mov [rdi + 0x58], r11",
        "mov [rdi + 0x60], r12",
        "mov [rdi + 0x68], r13",
        "mov [rdi + 0x70], r14",
        "mov [rdi + 0x78], r15",
        "pop rax",
        "mov [rdi + 0x38], rax",
        "xor eax, eax",
        "4: pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        host_rsp = const 0x6c14,
    )
}

/// Where the CPU goes at an exit.
pub fn exit_address() -> u64 {
    unsafe extern "C" {
        fn vmx_exit();
    }
    vmx_exit as *const () as u64
}
