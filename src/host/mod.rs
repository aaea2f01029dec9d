//! The host: boots the guests and runs its one loop. Each turn looks at the clock, the monitor, the network and the
//! migrations, and then lets one guest run, or rests until something happens.

#[cfg(target_os = "none")]
mod guests;
pub mod ledger;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
pub mod tenant;
#[cfg(target_os = "none")]
mod terminal;
pub mod throttle;
pub mod ticker;

#[cfg(target_os = "none")]
pub use guests::Guests;
#[cfg(target_os = "none")]
pub use run::run;
#[cfg(target_os = "none")]
pub use terminal::Terminal;
