//! Who looks at a watch.

use anyhow::Result;

use super::model::Model;

/// Is shown the model whenever something may have changed.
pub trait View {
    /// A new phase began, before there is anything to show.
    fn phase(&mut self, name: &str);
    /// The model as it is now.
    fn show(&mut self, model: &Model) -> Result<()>;
    /// Whether the person wants to end the watch.
    fn asked_to_end(&mut self) -> Result<bool>;
}

/// Sees nothing: for tests.
pub struct Blind;

impl View for Blind {
    fn phase(&mut self, _: &str) {}

    fn show(&mut self, _: &Model) -> Result<()> {
        Ok(())
    }

    fn asked_to_end(&mut self) -> Result<bool> {
        Ok(false)
    }
}
