//! The guests' archive: a `newc` cpio (the format of Linux's initramfs, `initramfs-buffer-format`), with one
//! directory a VM. Everything in it is a claim until [`Archive::read`] has walked it whole.

use alloc::{collections::BTreeMap, format, string::String};

/// The files of the archive, by path, borrowed from the boot module.
#[derive(Debug, Default)]
pub struct Archive<'a> {
    files: BTreeMap<&'a str, &'a [u8]>,
}

const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

impl<'a> Archive<'a> {
    /// Reads the archive's directory.
    ///
    /// # Errors
    /// One sentence that says what is wrong and at which byte.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let mut at = 0usize;
        loop {
            let header = slice(bytes, at, HEADER, "a header")?;
            if !matches!(header.get(..6), Some(b"070701" | b"070702")) {
                return Err(format!("guests' archive: no newc header at byte {at}"));
            }
            let size = number(header, 54, at)?;
            let name_size = number(header, 94, at)?;
            let name_bytes = slice(bytes, at + HEADER, name_size, "a name")?;
            let name = name_bytes
                .strip_suffix(b"\0")
                .and_then(|name| core::str::from_utf8(name).ok())
                .ok_or_else(|| format!("guests' archive: the name at byte {at} is not text"))?;
            if name == TRAILER {
                return Ok(Self { files });
            }
            let data_at = aligned(at + HEADER + name_size);
            let data = slice(bytes, data_at, size, name)?;
            files.insert(name.trim_start_matches("./"), data);
            at = aligned(data_at + size);
        }
    }

    /// The names of the VMs: the directories that hold a `kernel`.
    pub fn vms(&self) -> impl Iterator<Item = &'a str> {
        self.files.keys().filter_map(|path| path.strip_suffix("/kernel")).filter(|name| !name.contains('/'))
    }

    /// A file of a VM.
    pub fn file(&self, vm: &str, name: &str) -> Option<&'a [u8]> {
        self.files.get(format!("{vm}/{name}").as_str()).copied()
    }
}

fn slice<'a>(bytes: &'a [u8], at: usize, length: usize, what: &str) -> Result<&'a [u8], String> {
    at.checked_add(length)
        .and_then(|end| bytes.get(at..end))
        .ok_or_else(|| format!("guests' archive: truncated at byte {} (in {what}, which starts at {at})", bytes.len()))
}

/// Eight hexadecimal digits; sizes are below 4 GiB, so sums of them cannot overflow a `usize`.
fn number(header: &[u8], offset: usize, at: usize) -> Result<usize, String> {
    header
        .get(offset..offset + 8)
        .and_then(|digits| core::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .map(|value| value as usize)
        .ok_or_else(|| format!("guests' archive: the header at byte {at} holds no number at {offset}"))
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut out = format!("070701{:08x}{}", 1, "0".repeat(40)).into_bytes();
        out.extend(format!("{:08x}{}{:08x}{:08x}", data.len(), "0".repeat(32), name.len() + 1, 0).bytes());
        out.extend(name.bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn sample() -> Vec<u8> {
        let mut bytes = member("linux/kernel", b"KERNEL");
        bytes.extend(member("linux/settings", b"memory=64M\n"));
        bytes.extend(member("TRAILER!!!", b""));
        bytes
    }

    #[test]
    fn files_are_found_by_vm_and_name() {
        let bytes = sample();
        let archive = Archive::read(&bytes).unwrap();
        assert_eq!(archive.vms().collect::<Vec<_>>(), ["linux"]);
        assert_eq!(archive.file("linux", "kernel"), Some(&b"KERNEL"[..]));
        assert_eq!(archive.file("linux", "initrd"), None);
    }

    #[test]
    fn a_truncated_archive_says_where() {
        let bytes = sample();
        for length in 0..bytes.len() - 8 {
            assert!(Archive::read(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(Archive::read(&bytes[..130]).unwrap_err().contains("truncated at byte 130"));
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..200) {
            let _ = Archive::read(&bytes);
            let mut whole = sample();
            if let (Some(byte), Some(new)) = (whole.get_mut(at), bytes.pop()) { *byte = new; }
            let _ = Archive::read(&whole);
        }
    }
}
