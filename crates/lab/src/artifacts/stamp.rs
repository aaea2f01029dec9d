//! Build only what changed: beside each product lies a stamp that names what it was made from.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{fs, io};

use anyhow::{Context, Result};

/// The ingredients of a product: files by length and modification time, settings by their text.
#[derive(Default)]
pub struct Ingredients(String);

impl Ingredients {
    /// No ingredients yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text: a command line, a template, a version.
    pub fn text(mut self, text: &str) -> Self {
        self.0.push_str(&format!("text {} {text}\n", text.len()));
        self
    }

    /// Adds a file.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        let about = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.push_str(&format!("file {} {} {}\n", path.display(), about.len(), modified.as_nanos()));
        Ok(self)
    }

    /// Adds several files.
    pub fn files<P: AsRef<Path>>(self, paths: impl IntoIterator<Item = P>) -> Result<Self> {
        paths.into_iter().try_fold(self, |all, path| all.file(path.as_ref()))
    }
}

/// Runs `make` unless `product` was made from the same ingredients before. The product is made under another
/// name and then renamed, so that a build that was cut short leaves nothing that looks whole.
pub fn build(product: &Path, from: Ingredients, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let stamp = with_suffix(product, ".stamp");
    if product.exists() && fs::read_to_string(&stamp).is_ok_and(|old| old == from.0) {
        return Ok(());
    }
    let parent = product.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let partial = with_suffix(product, ".partial");
    remove(&partial)?;
    make(&partial).with_context(|| format!("cannot build {}", product.display()))?;
    remove(product)?;
    fs::rename(&partial, product)?;
    fs::write(&stamp, from.0)?;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a file or a directory, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let done = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_made_again_only_when_an_ingredient_changed() {
        let place = std::env::temp_dir().join(format!("qavisor-stamp-{}", std::process::id()));
        let product = place.join("product");
        let mut made = 0;
        let mut attempt = |text: &str| {
            build(&product, Ingredients::new().text(text), |path| {
                made += 1;
                Ok(fs::write(path, text)?)
            })
            .unwrap();
            made
        };
        assert_eq!(attempt("one"), 1);
        assert_eq!(attempt("one"), 1);
        assert_eq!(attempt("two"), 2);
        assert_eq!(fs::read_to_string(&product).unwrap(), "two");
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_build_that_fails_leaves_no_product() {
        let place = std::env::temp_dir().join(format!("qavisor-stamp-failed-{}", std::process::id()));
        let product = place.join("product");
        let failed = build(&product, Ingredients::new(), |path| {
            fs::write(path, "half")?;
            anyhow::bail!("the tool stopped")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("the tool stopped"));
        assert!(!product.exists());
        fs::remove_dir_all(&place).unwrap();
    }
}
