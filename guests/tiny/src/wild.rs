//! Wild values on everything that a hypervisor intercepts. Whatever comes of each, this program must still run after.

use crate::attempt::{self, Outcome};
use crate::line;
use crate::options::Options;
use crate::ring;

const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;

/// MSRs that an operating system uses, VMX's, x2APIC's, and those of hypervisors (SDM 4, chapter 2).
const KNOWN_MSRS: [u32; 40] = [
    0x10,
    0x17,
    0x1b,
    0x3a,
    0x3b,
    0x48,
    0x49,
    0x79,
    0x8b,
    0xce,
    0xfe,
    0x10a,
    0x10b,
    0x122,
    0x174,
    0x175,
    0x176,
    0x179,
    0x1a0,
    0x1d9,
    0x200,
    0x277,
    0x2ff,
    0x345,
    0x480,
    0x48b,
    0x6e0,
    0x802,
    0x830,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc000_0103,
    0x4000_0000,
    0x4b56_4d00,
];

/// Runs all kinds, with interrupts off, and prints a line for each.
pub fn run(options: &Options) {
    let mut random = Random(options.seed.max(1));
    let Options { count, .. } = *options;
    let mut kind = Kind::new("cpuid");
    for _ in 0..count {
        kind.note(attempt::cpuid(random.leaf(), random.next() as u32));
    }
    kind.end("rdmsr");
    for _ in 0..count {
        kind.note(attempt::read_msr(random.msr()).err().flatten());
    }
    kind.end("wrmsr");
    for _ in 0..count {
        kind.note(attempt::write_msr(random.msr(), random.value()));
    }
    kind.end("cr0");
    (0..64).for_each(|bit| kind.note(attempt::flip_cr0(bit)));
    kind.end("cr4");
    (0..64).for_each(|bit| kind.note(attempt::flip_cr4(bit)));
    // MAXPHYADDR is at most 52 (SDM 3A, 4.1.4): these are reserved in CR3 on every CPU.
    kind.end("cr3");
    (52..64).for_each(|bit| kind.note(attempt::set_cr3(bit)));
    kind.end("xcr");
    (0..64).for_each(|bit| kind.note(attempt::xsetbv(bit & 1, random.value())));
    kind.end("in");
    for _ in 0..count {
        kind.note(attempt::port_in(random.port(), random.width()));
    }
    kind.end("out");
    for _ in 0..count {
        let (port, width, value) = (random.port(), random.width(), random.next() as u32);
        if !is_spared(port, width) {
            kind.note(attempt::port_out(port, width, value));
        }
    }
    kind.end("ring");
    (0..count).for_each(|_| random.touch_ring(&mut kind));
    kind.end("instruction");
    for index in 0..attempt::instructions() {
        kind.note(attempt::instruction(index));
    }
    kind.end("memory");
    // Not canonical, and beyond what is mapped.
    for address in [1 << 63, 0x7fff_ffff_ffff, 4 << 30, 1 << 46] {
        kind.note(attempt::touch(address));
    }
    if options.holes {
        kind.end("hole");
        for address in [0xa_0000, 0xc_0000, 0xf_fff0, 0x8000_0000, 0xfec0_0000, 0xfee0_0020, 0xffff_fff0] {
            kind.note(attempt::touch(address));
        }
    }
    kind.end("");
}

/// OUTs to the console, and those that reset the machine, are left out.
fn is_spared(port: u16, width: u64) -> bool {
    let touched = u64::from(port)..u64::from(port) + width;
    let reset = [0x60, 0x64, 0x92, 0xcf9].iter().any(|reset| touched.contains(reset));
    reset || (touched.start <= 0x3ff && touched.end > 0x3f8)
}

/// What became of the tries of one kind.
struct Kind {
    name: &'static str,
    tried: u64,
    took: u64,
    general_protection: u64,
    invalid_opcode: u64,
    other: u64,
}

impl Kind {
    fn new(name: &'static str) -> Self {
        Self { name, tried: 0, took: 0, general_protection: 0, invalid_opcode: 0, other: 0 }
    }

    fn note(&mut self, outcome: Outcome) {
        self.tried += 1;
        match outcome {
            None => self.took += 1,
            Some(GENERAL_PROTECTION) => self.general_protection += 1,
            Some(INVALID_OPCODE) => self.invalid_opcode += 1,
            Some(_) => self.other += 1,
        }
    }

    /// Prints, and starts the next kind.
    fn end(&mut self, next: &'static str) {
        let Self { name, tried, took, general_protection, invalid_opcode, other } = self;
        line!("wild {name} tried={tried} took={took} gp={general_protection} ud={invalid_opcode} other={other}");
        *self = Self::new(next);
    }
}

/// Numbers that are as good as random, the same for the same seed: xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Half of them near the known leaves.
    fn leaf(&mut self) -> u32 {
        let base = [0, 0x4000_0000, 0x8000_0000, 0xc000_0000][self.pick(4)];
        if self.next() & 1 == 0 { base + (self.next() & 0x3f) as u32 } else { self.next() as u32 }
    }

    /// Some of them known, most in the two ranges that the MSR bitmap covers.
    fn msr(&mut self) -> u32 {
        let number = self.next();
        match self.pick(5) {
            0 => KNOWN_MSRS[self.pick(KNOWN_MSRS.len() as u64)],
            1 => (number & 0xfff) as u32,
            2 => (number & 0x1fff) as u32,
            3 => 0xc000_0000 | (number & 0x1fff) as u32,
            _ => number as u32,
        }
    }

    fn port(&mut self) -> u16 {
        let number = self.next() as u16;
        if self.next() & 1 == 0 { number & 0x3ff } else { number }
    }

    /// Writes a word of the balloon's ring, and tries one of its registers.
    fn touch_ring(&mut self, kind: &mut Kind) {
        const BALLOON: u16 = 0xc000;
        // Descriptors and indices are near the start. Few values are small enough to be one.
        let near = self.next() & 1 == 0;
        let word = self.pick(if near { 320 } else { ring::WORDS as u64 });
        let value = if self.next() & 3 == 0 { self.next() as u16 } else { self.pick(40) as u16 };
        ring::write(word, value);
        let queue = self.pick(6) as u32;
        // Nothing of the guest's own memory but the ring: the device writes there.
        let page = if self.next() & 7 == 0 { 1 << 20 | self.next() as u32 } else { ring::page() };
        kind.note(match self.pick(6) {
            0 => attempt::port_out(BALLOON + 14, 2, queue),
            1 => attempt::port_out(BALLOON + 8, 4, page),
            2 | 3 => attempt::port_out(BALLOON + 16, 2, queue),
            4 => attempt::port_out(BALLOON + 4, 4, self.next() as u32),
            _ => attempt::port_in(BALLOON + (self.next() & 0x3f) as u16, self.width()),
        });
    }

    fn width(&mut self) -> u64 {
        [1, 2, 4][self.pick(3)]
    }

    /// Any, few bits, or all but few.
    fn value(&mut self) -> u64 {
        let number = self.next();
        let bit = 1 << (self.next() & 63);
        [number, bit, !bit, 0, u64::MAX, number & 0xff][self.pick(6)]
    }

    fn pick(&mut self, of: u64) -> usize {
        (self.next() >> 32).checked_rem(of).and_then(|pick| usize::try_from(pick).ok()).unwrap_or(0)
    }
}
