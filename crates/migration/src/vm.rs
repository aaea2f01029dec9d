//! What an engine needs of a VM: the real one in the image, a simulated one in tests.

use crate::wire::Offer;
use crate::{Bitmap, Page};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// The VM that leaves. Frame numbers that an engine asks for are always below [`SourceVm::page_count`].
pub trait SourceVm {
    /// Pages of memory.
    fn page_count(&self) -> u64;

    /// A page as it is now. The engine reads it while the guest does not run: between two calls into the engine the
    /// guest may go on, during one it does not.
    fn page(&self, gfn: u64) -> &Page;

    /// Begins or ends collecting modified pages for the migration. When it begins, nothing is collected yet: the
    /// engine sends every page once in any case.
    fn track(&mut self, on: bool);

    /// Adds to `dirty` the pages that were modified (by the guest or by devices) since tracking began or the last
    /// harvest. Other observers of the same dirty flags must not lose by it.
    fn harvest(&mut self, dirty: &mut Bitmap);

    /// Adds pages whose content the guest does not need now: before it reads one it writes it, or takes zeroes for it. Asked
    /// while the guest does not run, so it must hold at that moment; [`SourceVm::harvest`] tells the pages that it
    /// takes into use later.
    fn free_pages(&mut self, _into: &mut Bitmap) {}

    /// Slows the guest: of its time it is to run `100 - percent` hundredths. 0: it runs at full speed.
    fn throttle(&mut self, _percent: u8) {}

    /// About how many bytes [`SourceVm::save_state`] will give: to predict the downtime.
    fn state_size(&self) -> usize {
        16 * 1024
    }

    /// A clock, in nanoseconds, that goes on while the engine works: what an encoding costs is read from it. One that
    /// stands still says that the engine takes no time.
    fn nanos(&self) -> u64 {
        0
    }

    /// Stops the guest. Its devices stop with it.
    fn pause(&mut self);

    /// Lets the paused guest go on here. The hand-over rule decides when; an engine never calls it after COMMIT.
    fn resume(&mut self);

    /// The vCPU and the devices, of the paused VM, as one package. It may modify pages.
    ///
    /// # Errors
    /// One line, when a device refuses.
    fn save_state(&mut self) -> Result<Vec<u8>, String>;
}

/// The VM that arrives, or the place for it.
pub trait DestinationVm {
    /// Makes room for the offered VM: a paused VM with that many pages, all of them zero once
    /// [`DestinationVm::zero_some`] has said so.
    ///
    /// # Errors
    /// The reason, in words for the user of the source: too little memory, another TSC rate.
    fn prepare(&mut self, offer: &Offer) -> Result<(), String>;

    /// Zeroes some of the memory that was made room for. Returns whether all of it is zero: the source sends no page
    /// before that. Large memory takes long, and other guests of the host (the VM itself, if its source is here) run
    /// in between.
    fn zero_some(&mut self) -> bool {
        true
    }

    /// A page that has come, as it is now. The engine reads it only before the guest runs here.
    fn received(&self, gfn: u64) -> &Page;

    /// A page has come. In a post-copy the guest may touch it from now on.
    fn write_page(&mut self, gfn: u64, page: &Page);

    /// Pages of zeroes have come. They are the first that come for these pages (whose memory was zeroed before any came)
    /// if `untouched`; then only their presence is to be noted.
    fn write_zeroes(&mut self, gfns: Range<u64>, untouched: bool);

    /// Loads the vCPU and the devices. The VM stays paused.
    ///
    /// # Errors
    /// One line, when a device refuses. The source's VM goes on there.
    fn load_state(&mut self, state: &[u8]) -> Result<(), String>;

    /// Pages that have not come, before the guest first runs: touching one must lead to
    /// [`crate::Destination::fault`], until it is written. Not called when none is missing.
    fn set_missing(&mut self, missing: &Bitmap);

    /// Every page has come.
    fn all_present(&mut self);

    /// Lets the guest run. Called once, when COMMIT has come.
    fn run(&mut self);
}
