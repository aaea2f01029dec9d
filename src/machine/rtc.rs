//! The time of day, from the machine's MC146818 clock.

use x86_64::instructions::port::Port;

const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const UPDATING: u8 = 0x80;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;

fn register(index: u8) -> u8 {
    // SAFETY: the CMOS index and data ports; reading a register of the clock has no effect.
    unsafe {
        Port::<u8>::new(0x70).write(index);
        Port::<u8>::new(0x71).read()
    }
}

/// Seconds since 1970, in the clock's own time zone; 1970 itself where there is no clock.
pub fn unix_time() -> u64 {
    // An update takes 2 ms at most, so a clock that is there is soon readable, and two equal readings are one moment.
    for _ in 0..10_000 {
        let first = read();
        if first.is_some() && first == read() {
            return first.unwrap_or(0);
        }
    }
    0
}

fn read() -> Option<u64> {
    if register(STATUS_A) & UPDATING != 0 {
        return None;
    }
    let status = register(STATUS_B);
    let number = |value: u8| if status & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) };
    let [second, minute, day, month, year] = [0u8, 2, 7, 8, 9].map(|index| i64::from(number(register(index))));
    let hour = register(4);
    let afternoon = status & HOURS_24 == 0 && hour & 0x80 != 0;
    let hour = match (status & HOURS_24 != 0, i64::from(number(hour & 0x7f))) {
        (true, hour) => hour,
        (false, 12) => {
            if afternoon {
                12
            } else {
                0
            }
        }
        (false, hour) => hour + if afternoon { 12 } else { 0 },
    };
    let seconds = days_since_1970(2000 + year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds).ok()
}

/// Days of the proleptic Gregorian calendar, counted in years that begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days_before_month = (153 * month + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::days_since_1970;

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2024, 12, 31), 20_088);
    }
}
