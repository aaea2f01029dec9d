//! Why a guest stopped (SDM appendix C), and the exit qualifications (SDM 28.2.1) as checked types.
#![allow(missing_docs)]

/// Basic exit reasons that the hypervisor tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    ExceptionOrNmi,
    ExternalInterrupt,
    TripleFault,
    InterruptWindow,
    Cpuid,
    Hlt,
    Invd,
    Rdpmc,
    Vmx,
    CrAccess,
    Io,
    Rdmsr,
    Wrmsr,
    EntryFailure,
    Mwait,
    Monitor,
    EptViolation,
    EptMisconfiguration,
    PreemptionTimer,
    Wbinvd,
    Xsetbv,
    ModificationLogFull,
    /// Anything else, by its number.
    Other(u16),
}

impl Reason {
    /// From the exit-reason field: bit 31 is a failed entry (SDM 27.8).
    pub fn from_field(field: u64) -> Self {
        if field & (1 << 31) != 0 {
            return Self::EntryFailure;
        }
        match field as u16 {
            0 => Self::ExceptionOrNmi,
            1 => Self::ExternalInterrupt,
            2 => Self::TripleFault,
            7 => Self::InterruptWindow,
            10 => Self::Cpuid,
            12 => Self::Hlt,
            13 => Self::Invd,
            15 => Self::Rdpmc,
            18..=27 | 50 | 53 => Self::Vmx,
            28 => Self::CrAccess,
            30 => Self::Io,
            31 => Self::Rdmsr,
            32 => Self::Wrmsr,
            36 => Self::Mwait,
            39 => Self::Monitor,
            48 => Self::EptViolation,
            49 => Self::EptMisconfiguration,
            52 => Self::PreemptionTimer,
            54 => Self::Wbinvd,
            55 => Self::Xsetbv,
            62 => Self::ModificationLogFull,
            other => Self::Other(other),
        }
    }

    /// The name under which exits are counted in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExceptionOrNmi => "exception-or-nmi",
            Self::ExternalInterrupt => "external-interrupt",
            Self::TripleFault => "triple-fault",
            Self::InterruptWindow => "interrupt-window",
            Self::Cpuid => "cpuid",
            Self::Hlt => "hlt",
            Self::Invd => "invd",
            Self::Rdpmc => "rdpmc",
            Self::Vmx => "vmx-instruction",
            Self::CrAccess => "cr-access",
            Self::Io => "io",
            Self::Rdmsr => "rdmsr",
            Self::Wrmsr => "wrmsr",
            Self::EntryFailure => "entry-failure",
            Self::Mwait => "mwait",
            Self::Monitor => "monitor",
            Self::EptViolation => "ept-violation",
            Self::EptMisconfiguration => "ept-misconfiguration",
            Self::PreemptionTimer => "preemption-timer",
            Self::Wbinvd => "wbinvd",
            Self::Xsetbv => "xsetbv",
            Self::ModificationLogFull => "page-modification-log-full",
            Self::Other(_) => "other",
        }
    }
}

/// A control-register access (SDM table 28-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrAccess {
    /// MOV to CR0, CR3, CR4 or CR8 from a general register (by number).
    MoveTo {
        cr: u8,
        register: u8,
    },
    MoveFrom {
        cr: u8,
        register: u8,
    },
    Clts,
    Lmsw(u16),
}

impl CrAccess {
    pub fn from_qualification(qualification: u64) -> Self {
        let (cr, register) = ((qualification & 0xf) as u8, (qualification >> 8 & 0xf) as u8);
        match qualification >> 4 & 3 {
            0 => Self::MoveTo { cr, register },
            1 => Self::MoveFrom { cr, register },
            2 => Self::Clts,
            _ => Self::Lmsw((qualification >> 16) as u16),
        }
    }
}

/// A port access (SDM table 28-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub bytes: u8,
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
}

impl IoAccess {
    pub fn from_qualification(qualification: u64) -> Self {
        let bytes = match qualification & 7 {
            0 => 1,
            1 => 2,
            _ => 4,
        };
        Self {
            port: (qualification >> 16) as u16,
            bytes,
            input: qualification & (1 << 3) != 0,
            string: qualification & (1 << 4) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_entry_is_told_from_an_exit() {
        assert_eq!(Reason::from_field(10), Reason::Cpuid);
        assert_eq!(Reason::from_field(0x8000_0021), Reason::EntryFailure);
        assert_eq!(Reason::from_field(99), Reason::Other(99));
    }

    #[test]
    fn qualifications_are_read_as_the_manual_says() {
        assert_eq!(CrAccess::from_qualification(0x503), CrAccess::MoveTo { cr: 3, register: 5 });
        assert_eq!(
            IoAccess::from_qualification(0x03f8_0008),
            IoAccess { port: 0x3f8, bytes: 1, input: true, string: false }
        );
    }
}
