//! A virtio console: a whole line is one request to the device, where a UART takes sixteen bytes at a time. Under an emulated
//! machine a byte on a UART costs as much as a line here.

use super::{
    pci,
    virtio::{IdentityHal, find_type},
};
use virtio_drivers::{
    device::console::VirtIOConsole,
    transport::{DeviceType, pci::PciTransport},
};

/// The first virtio console's port 0.
pub struct VirtioConsole {
    device: VirtIOConsole<IdentityHal, PciTransport>,
}

impl VirtioConsole {
    /// Finds it and brings it up.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open() -> Result<Self, &'static str> {
        let mut pci = pci::root();
        let function = find_type(&pci, DeviceType::Console).ok_or("no virtio console")?;
        pci::enable(&mut pci, function);
        let transport = PciTransport::new::<IdentityHal, _>(&mut pci, function)
            .map_err(|_| "the virtio console has no usable modern interface")?;
        let device = VirtIOConsole::new(transport).map_err(|_| "the virtio console cannot be set up")?;
        Ok(Self { device })
    }

    /// Sends bytes. They are lost if the device refuses them; there is nobody left to tell.
    pub fn write(&mut self, bytes: &[u8]) {
        const MOST: usize = 4096;
        for chunk in bytes.chunks(MOST) {
            let _ = self.device.send_bytes(chunk);
        }
    }

    /// The next received byte.
    pub fn read(&mut self) -> Option<u8> {
        self.device.recv(true).ok().flatten()
    }
}
