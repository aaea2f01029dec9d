//! The `newc` cpio archive: what Linux takes as an initramfs and the image takes as its guests.

/// A device node, its numbers.
const CONSOLE: (u32, u32) = (5, 1);

/// An archive that grows entry by entry.
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    /// An archive without entries.
    pub fn new() -> Self {
        Archive { bytes: Vec::new(), entries: 0 }
    }

    /// Adds a directory.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    /// Adds a file that all may read.
    pub fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, 0o100_644, (0, 0), data);
    }

    /// Adds a file that can be run.
    pub fn program(&mut self, name: &str, data: &[u8]) {
        self.entry(name, 0o100_755, (0, 0), data);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, to: &str) {
        self.entry(name, 0o120_777, (0, 0), to.as_bytes());
    }

    /// Adds `/dev/console`: the kernel opens it for its first process before any file system is mounted.
    pub fn console(&mut self, name: &str) {
        self.entry(name, 0o020_600, CONSOLE, &[]);
    }

    /// The whole archive, closed by its trailer.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// One header of thirteen 8-digit fields, the name, the data; name and data each padded to 4 bytes.
    fn entry(&mut self, name: &str, mode: u32, node: (u32, u32), data: &[u8]) {
        let size = u32::try_from(data.len()).expect("a file in an archive is smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a name is short");
        self.entries += 1;
        let links = if mode & 0o040_000 != 0 { 2 } else { 1 };
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, node.0, node.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive back: name, mode, device, data.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let total = bytes.len();
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let device = (field(9), field(10));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let data = (110 + name_size).next_multiple_of(4);
            entries.push((name, mode, device, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
            assert_eq!((total - bytes.len()) % 4, 0);
        }
        entries
    }

    #[test]
    fn entries_read_back_with_names_modes_and_data_of_every_length() {
        let mut archive = Archive::new();
        archive.directory("linux");
        for length in 0..9_u8 {
            archive.file(&"x".repeat(usize::from(length) + 1), &vec![length; usize::from(length)]);
        }
        archive.program("init", b"#!");
        archive.console("dev/console");
        archive.link("bin/sh", "busybox");
        let entries = read(&archive.finish());
        assert_eq!(entries.len(), 14);
        assert_eq!(entries[0], ("linux".into(), 0o040_755, (0, 0), vec![]));
        assert_eq!(entries[5].3, vec![4; 4]);
        assert_eq!(entries[10].1, 0o100_755);
        assert_eq!(entries[11], ("dev/console".into(), 0o020_600, (5, 1), vec![]));
        let link = ("bin/sh".into(), 0o120_777, (0, 0), b"busybox".to_vec());
        assert_eq!(entries[12], link);
        assert_eq!(entries[13].0, "TRAILER!!!");
    }
}
