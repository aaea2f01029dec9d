//! The hypervisor's heap: a fixed array in the image, so that its size is known before it runs.

use talc::{TalcLock, source::Claim};

/// 8 MiB: the network buffers are the largest user, guests' memory never comes from here.
const HEAP_SIZE: usize = 8 << 20;

static mut HEAP: [u8; HEAP_SIZE] = [0; HEAP_SIZE];

// SAFETY: HEAP is named nowhere else, so the allocator owns it alone, for the life of the image.
#[global_allocator]
static ALLOCATOR: TalcLock<spin::Mutex<()>, Claim> = TalcLock::new(unsafe { Claim::array(&raw mut HEAP) });
