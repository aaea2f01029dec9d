//! The ways in which a guest restarts its OS.

/// How the guest's OS restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartCause {
    /// A fault while a double fault was delivered (SDM vol. 3, section 26.2).
    TripleFault,
    /// A write to the reset control register of the chipset.
    ResetControl,
    /// The keyboard controller's command 0xFE, which pulses the reset line.
    KeyboardController,
    /// A write to the reset register that ACPI's FADT names.
    AcpiReset,
}

impl RestartCause {
    /// The words of the `restart` event.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::TripleFault => "triple fault",
            Self::ResetControl => "port 0xCF9",
            Self::KeyboardController => "8042 pulse",
            Self::AcpiReset => "ACPI reset",
        }
    }
}
