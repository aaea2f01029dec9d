//! A VM's settings: `key=value` lines in the guests' archive.

use alloc::{format, string::String};

/// What the host must know of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of RAM, a multiple of 4 KiB.
    pub memory: u64,
    /// The guest kernel's command line.
    pub command_line: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory: 256 << 20, command_line: String::new() }
    }
}

/// The least memory of a VM: the loader's tables and a small guest.
const LEAST_MEMORY: u64 = 4 << 20;

impl Settings {
    /// Reads the lines; blank ones and those that start with `#` are skipped.
    ///
    /// # Errors
    /// One sentence that names the key.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = core::str::from_utf8(text).map_err(|_| String::from("settings: not UTF-8"))?;
        let mut settings = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once('=') {
                Some(("memory", value)) => settings.memory = size(value)?,
                Some(("cmdline", value)) => settings.command_line = value.into(),
                Some((key, _)) => return Err(format!("settings: unknown key `{key}` (known: memory, cmdline)")),
                None => return Err(format!("settings: `{line}` is no key=value")),
            }
        }
        Ok(settings)
    }
}

/// `64M`, `1G`, `65536K`.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, ""),
    };
    let factor: u64 = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(format!("settings: memory `{text}`: the unit is K, M or G")),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match bytes {
        Some(bytes) if bytes < LEAST_MEMORY => Err(format!("settings: memory `{text}`: at least 4M")),
        Some(bytes) if bytes % 4096 != 0 => Err(format!("settings: memory `{text}`: not a multiple of 4K")),
        Some(bytes) if bytes <= 512 << 30 => Ok(bytes),
        _ => Err(format!("settings: memory `{text}`: not a size up to 512G")),
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn keys_are_read_and_the_command_line_keeps_its_equals_signs() {
        let settings = Settings::parse(b"# a guest\nmemory=64M\ncmdline=console=ttyS0 quiet\n").unwrap();
        assert_eq!(settings.memory, 64 << 20);
        assert_eq!(settings.command_line, "console=ttyS0 quiet");
    }

    #[test]
    fn wrong_settings_name_what_is_wrong() {
        for (text, word) in [
            ("memory=1M", "at least"),
            ("memory=64X", "unit"),
            ("memory=99999999999999G", "512G"),
            ("color=red", "color"),
            ("nonsense", "nonsense"),
        ] {
            let error = Settings::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
