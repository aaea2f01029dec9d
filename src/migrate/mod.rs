//! temp stub
use crate::{host::{Guests, Terminal}, monitor::{command::{Migrate, PolicyName}, options::Options}, observe::Observed};
use alloc::string::String;
use core::net::SocketAddrV4;
#[allow(missing_docs)]
pub struct Migrations;
#[allow(missing_docs)]
impl Migrations {
    pub fn new(_: &Options) -> Result<Self, String> { Ok(Self) }
    pub fn step(&mut self, _: &mut Guests, _: &Terminal) {}
    pub fn sampled(&mut self, _: u32, o: &Observed, _: &mut Guests, _: &Terminal) { log::info!("{o:?}"); }
    pub fn streaming(&self) -> bool { false }
    pub fn has_work(&self) -> bool { false }
    pub fn deadline(&self) -> Option<u64> { None }
    pub fn page_missing(&mut self, _: u32, _: u64) {}
    pub fn start(&mut self, r: Migrate, _: PolicyName, g: &mut Guests) -> Result<(), String> { let id = g.find(&r.vm).ok_or("no VM")?; if let Some(t) = g.get(id) { t.start_sample(r.ts) } Ok(()) }
    pub fn cancel(&mut self, _: &str, _: &mut Guests, _: &Terminal) -> Result<(), String> { Ok(()) }
    pub fn recover(&mut self, _: &str, _: SocketAddrV4) -> Result<(), String> { Ok(()) }
}
