//! CDs that boot by GRUB: a kernel, an optional initrd or module, a command line.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::stamp::{self, Ingredients};
use super::tools;

/// How GRUB starts what is on the CD.
#[derive(Clone, Copy)]
pub enum Protocol {
    /// A Linux kernel with an initrd.
    Linux,
    /// An image with the guests as its module. GRUB takes it by multiboot2.
    Multiboot2,
}

/// What goes on a CD.
pub struct Contents<'a> {
    /// By which protocol it starts.
    pub protocol: Protocol,
    /// The kernel or the image.
    pub kernel: &'a Path,
    /// The initrd or the guests.
    pub module: &'a Path,
    /// The options for the kernel or the image.
    pub command_line: &'a str,
}

/// GRUB's own commands for the image; one place for the CD that the lab makes and the one that a person makes.
const IMAGE_CONFIG: &str = include_str!("../../../../boot/grub.cfg");
const LINUX_CONFIG: &str = "linux /boot/kernel @OPTIONS@\ninitrd /boot/module\nboot\n";

/// Makes the CD, unless it is there.
pub fn build(product: &Path, contents: &Contents) -> Result<()> {
    let Contents { protocol, kernel, module, command_line } = *contents;
    let (template, grub_modules) = match protocol {
        Protocol::Linux => (LINUX_CONFIG, "linux normal iso9660 biosdisk"),
        Protocol::Multiboot2 => (IMAGE_CONFIG, "multiboot2 normal iso9660 biosdisk"),
    };
    // GRUB splits and expands: a letter that means something to it would silently change the options.
    let harmless = |c: char| c.is_ascii_graphic() && !"\"'\\$;&|<>{}#".contains(c) || c == ' ';
    ensure!(
        command_line.chars().all(harmless),
        "an option holds a character that GRUB would interpret: {command_line}"
    );
    let config = template.replace("@OPTIONS@", command_line);
    let from = Ingredients::new().text(&config).text(grub_modules).file(kernel)?.file(module)?;
    stamp::build(product, from, |partial| {
        let tree = partial.with_extension("tree");
        stamp::remove(&tree)?;
        fs::create_dir_all(tree.join("boot/grub"))?;
        fs::copy(kernel, tree.join("boot/kernel"))?;
        fs::copy(module, tree.join("boot/module"))?;
        fs::write(tree.join("boot/grub/grub.cfg"), &config)?;
        let mut mkrescue = tools::command(&tools::GRUB_MKRESCUE)?;
        // Only the BIOS half of GRUB and the modules in need: half the size, and the CD is read by emulated hardware.
        mkrescue.args(["-d", "/usr/lib/grub/i386-pc", "--themes=", "--fonts=", "--locales="]);
        mkrescue.arg(format!("--install-modules={grub_modules}")).arg("-o").arg(partial).arg(&tree);
        tools::run(&mut mkrescue)?;
        stamp::remove(&tree)
    })
}
