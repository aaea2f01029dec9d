//! The real-time clock and its 128 bytes of battery-backed memory (Motorola MC146818A datasheet).
//!
//! The clock is a Unix time at a moment of guest time. While a guest holds it still (SET in register B) it reads
//! the same, and it runs on from what was written. Its three interrupts are absent: register C reads 0.

use super::record::Device;
use super::{Nanos, SECOND};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

const SIZE: usize = 128;

const REGISTER_A: u8 = 0x0A;
const REGISTER_B: u8 = 0x0B;
const REGISTER_C: u8 = 0x0C;
const REGISTER_D: u8 = 0x0D;
/// The century, where PCs keep it.
const CENTURY: u8 = 0x32;

/// Register A: "update in progress".
const UPDATING: u8 = 1 << 7;
/// UIP is set 244 us before the registers change.
const UPDATE_TIME: Nanos = 244_000;
/// Register A after power-on: 32,768 Hz time base, 1,024 Hz rate.
const TIME_BASE: u8 = 0x26;
const HOLD: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
/// Register D: the battery is good.
const VALID: u8 = 1 << 7;
/// The hour's PM flag in the 12-hour format.
const PM: u8 = 1 << 7;

/// The last second of the year 9999: four digits are all that the registers hold.
const LAST_SECOND: u64 = 253_402_300_799;

/// A broken-down time of the Gregorian calendar, in ranges that the registers can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    /// Days to a date, by eras of 400 years that begin in March (H. Hinnant, "chrono-compatible low-level date
    /// algorithms").
    fn from_unix(unix: u64) -> Self {
        let unix = unix.min(LAST_SECOND);
        let time = unix % 86_400;
        let days = unix / 86_400 + 719_468; // since 0000-03-01
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }

    /// The reverse; what is out of range is brought into it first, and a day before 1970 is its first second.
    fn to_unix(self) -> u64 {
        let month = self.month.clamp(1, 12);
        let year = self.year.clamp(1970, 9999) - u64::from(month <= 2);
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * from_march + 2) / 5 + self.day.clamp(1, 31) - 1;
        let year_of_era = year % 400;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (year / 400 * 146_097 + day_of_era).saturating_sub(719_468);
        let time = self.hour.min(23) * 3600 + self.minute.min(59) * 60 + self.second.min(59);
        (days * 86_400 + time).min(LAST_SECOND)
    }
}

/// The clock and its memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cmos {
    /// What port 0x70 selects: 0..128.
    index: u8,
    /// The bytes as written; those of the clock are derived from the time instead.
    bytes: Vec<u8>,
    /// The time at `base`.
    unix: u64,
    base: Nanos,
}

impl Cmos {
    pub(super) fn new(unix: u64, now: Nanos) -> Self {
        let mut bytes = alloc::vec![0; SIZE];
        for (register, value) in [(REGISTER_A, TIME_BASE), (REGISTER_B, HOURS_24), (REGISTER_D, VALID)] {
            if let Some(byte) = bytes.get_mut(usize::from(register)) {
                *byte = value;
            }
        }
        Self { index: 0, bytes, unix: unix.min(LAST_SECOND), base: now }
    }

    /// Port 0x70; its high bit masks NMI, of which there are none.
    pub(super) fn select(&mut self, value: u8) {
        self.index = value & 0x7F;
    }

    /// Reads port 0x71.
    pub(super) fn read(&self, now: Nanos) -> u8 {
        let date = Date::from_unix(self.unix_at(now));
        match self.index {
            0x00 => self.encode(date.second),
            0x02 => self.encode(date.minute),
            0x04 => self.encode_hour(date.hour),
            0x06 => self.encode((self.unix_at(now) / 86_400 + 4) % 7 + 1), // 1970-01-01 was a Thursday; Sunday is 1
            0x07 => self.encode(date.day),
            0x08 => self.encode(date.month),
            0x09 => self.encode(date.year % 100),
            CENTURY => self.encode(date.year / 100),
            REGISTER_A => self.byte(REGISTER_A) | if self.is_updating(now) { UPDATING } else { 0 },
            REGISTER_C => 0,
            REGISTER_D => VALID,
            index => self.byte(index),
        }
    }

    /// Writes port 0x71.
    pub(super) fn write(&mut self, value: u8, now: Nanos) {
        let mut date = Date::from_unix(self.unix_at(now));
        match self.index {
            0x00 => date.second = self.decode(value),
            0x02 => date.minute = self.decode(value),
            0x04 => date.hour = self.decode_hour(value),
            0x06 => return, // the weekday follows from the date
            0x07 => date.day = self.decode(value),
            0x08 => date.month = self.decode(value),
            0x09 => date.year = date.year / 100 * 100 + self.decode(value).min(99),
            CENTURY => date.year = self.decode(value).min(99) * 100 + date.year % 100,
            REGISTER_A => return self.set_byte(REGISTER_A, value & !UPDATING),
            REGISTER_B => return self.write_control(value, now),
            REGISTER_C | REGISTER_D => return, // read-only
            index => return self.set_byte(index, value),
        }
        // The part of a second that has passed stays: only the register that was written changes.
        self.hold_at(now);
        self.unix = date.to_unix();
    }

    fn byte(&self, index: u8) -> u8 {
        self.bytes.get(usize::from(index)).copied().unwrap_or(0xFF)
    }

    fn set_byte(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn is_held(&self) -> bool {
        self.byte(REGISTER_B) & HOLD != 0
    }

    fn unix_at(&self, now: Nanos) -> u64 {
        let passed = if self.is_held() { 0 } else { now.saturating_sub(self.base) / SECOND };
        self.unix.saturating_add(passed).min(LAST_SECOND)
    }

    /// Moves the base to the second that `now` lies in.
    fn hold_at(&mut self, now: Nanos) {
        self.unix = self.unix_at(now);
        if !self.is_held() {
            let passed = now.saturating_sub(self.base);
            self.base = now.saturating_sub(passed % SECOND);
        }
    }

    fn write_control(&mut self, value: u8, now: Nanos) {
        let was_held = self.is_held();
        self.hold_at(now);
        self.set_byte(REGISTER_B, value);
        if was_held && !self.is_held() {
            self.base = now;
        }
    }

    fn is_updating(&self, now: Nanos) -> bool {
        !self.is_held() && now.saturating_sub(self.base) % SECOND >= SECOND - UPDATE_TIME
    }

    fn encode(&self, value: u64) -> u8 {
        let value = (value % 100) as u8;
        if self.byte(REGISTER_B) & BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u64 {
        let binary = self.byte(REGISTER_B) & BINARY != 0;
        u64::from(if binary { value } else { (value >> 4) * 10 + (value & 0xF) })
    }

    fn encode_hour(&self, hour: u64) -> u8 {
        if self.byte(REGISTER_B) & HOURS_24 != 0 {
            return self.encode(hour);
        }
        let of_half_day = (hour + 11) % 12 + 1; // 0 and 12 o'clock are 12
        self.encode(of_half_day) | if hour >= 12 { PM } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u64 {
        if self.byte(REGISTER_B) & HOURS_24 != 0 {
            return self.decode(value);
        }
        self.decode(value & !PM) % 12 + if value & PM != 0 { 12 } else { 0 }
    }
}

impl Device for Cmos {
    const NAME: &'static str = "clock";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if usize::from(self.index) >= SIZE {
            return Err("index");
        }
        if self.bytes.len() != SIZE {
            return Err("bytes");
        }
        if self.unix > LAST_SECOND {
            return Err("unix");
        }
        Ok(())
    }
}
