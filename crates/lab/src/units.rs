//! What a person types for times, sizes, rates and ratios, read once into numbers.

use std::time::Duration;

use migration::Encodings;

/// Splits `250ms` into its number and its unit.
fn split(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    Ok((number, unit.trim()))
}

/// Turns a product into a whole number that a `u64` holds.
fn whole(value: f64, text: &str) -> Result<u64, String> {
    // 2^53: beyond it, a float no longer names each whole number.
    if !(0.0..=9_007_199_254_740_992.0).contains(&value) {
        return Err(format!("`{text}` is out of range"));
    }
    Ok(value.round() as u64)
}

/// `100us`, `500ms`, `2s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let micros = match unit {
        "us" => number,
        "ms" => number * 1e3,
        "s" => number * 1e6,
        _ => return Err(format!("`{text}` needs a unit: us, ms or s")),
    };
    whole(micros, text).map(Duration::from_micros)
}

/// `256M`, `1G`, `64K`, or plain bytes; powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" => 1.0,
        "K" | "KiB" => 1024.0,
        "M" | "MiB" => 1024.0 * 1024.0,
        "G" | "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("`{text}` has an unknown unit: K, M or G")),
    };
    whole(number * factor, text)
}

/// `1Gbit`, `100Mbit`, `125MB`: a rate, in bytes a second; powers of 1000.
pub fn bandwidth(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "kbit" | "Kbit" => 125.0,
        "Mbit" => 125e3,
        "Gbit" => 125e6,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => {
            return Err(format!("`{text}` has an unknown unit: kbit, Mbit, Gbit, kB, MB or GB a second"));
        }
    };
    whole(number * factor, text)
}

/// `N/M` or `N`, as the image reads it; the words are kept so that nothing is rounded on the way.
pub fn ratio(text: &str) -> Result<String, String> {
    let (above, below) = text.split_once('/').unwrap_or((text, "1"));
    let readable = above.parse::<u32>().is_ok() && below.parse::<u32>().is_ok_and(|below| below > 0);
    if readable { Ok(text.to_owned()) } else { Err(format!("`{text}` is no ratio: N/M or N, whole numbers, M not 0")) }
}

/// Encodings, as the image reads them; the words are kept.
pub fn encodings(text: &str) -> Result<String, String> {
    let wanted = Encodings::WORDS;
    Encodings::read(text).map(|_| text.to_owned()).ok_or_else(|| format!("`{text}` is no list of encodings: {wanted}"))
}

/// A duration as the image's options take it: the largest unit that loses nothing.
pub fn show_duration(value: Duration) -> String {
    let micros = value.as_micros();
    if micros.is_multiple_of(1000) { format!("{}ms", micros / 1000) } else { format!("{micros}us") }
}

/// Milliseconds as a number, for a report.
pub fn millis(value: Duration) -> f64 {
    value.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit_and_print_back() {
        assert_eq!(duration("100us"), Ok(Duration::from_micros(100)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::from_micros(100)), "100us");
    }

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        assert!(duration("500").unwrap_err().contains("unit"));
        assert!(duration("ms").unwrap_err().contains("number"));
        assert!(duration("-1ms").is_err());
    }

    #[test]
    fn sizes_are_powers_of_two_and_rates_powers_of_ten() {
        assert_eq!(size("256M"), Ok(256 << 20));
        assert_eq!(size("1.5G"), Ok(3 << 29));
        assert_eq!(bandwidth("1Gbit"), Ok(125_000_000));
        assert_eq!(bandwidth("2MB"), Ok(2_000_000));
        assert!(size("1T").is_err());
        assert!(bandwidth("1Mbps").is_err());
        assert!(size("99999999999G").unwrap_err().contains("range"));
    }

    #[test]
    fn a_ratio_is_kept_as_typed_and_never_divides_by_zero() {
        assert_eq!(ratio("5/2").as_deref(), Ok("5/2"));
        assert_eq!(ratio("3").as_deref(), Ok("3"));
        assert!(ratio("3/0").is_err());
        assert!(ratio("a/2").is_err());
    }
}
