//! What users would pick instead: QEMU 7.2/KVM's own migration of the same guest (128 MiB, Debian's 6.1 cloud kernel,
//! heartbeat each 100 ms) in the same emulated machine, in its emulated ms. One emulated CPU runs both sides.
//!
//! At depth 1 QEMU's guests run on KVM in the emulated machine; that is where `bochs` has the image, on the machine
//! itself. At depth 2 a Linux with KVM and QEMU runs inside QEMU/KVM inside the machine; that is where `nested` has
//! the image. Measured in November 2026 with Bochs 2.7 at 50 million instructions a second.

use serde_json::{Value, json};

use crate::env::Environment;

/// QEMU's figures for one row, in ms; `None` where its migration never ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rival {
    pub total_time: Option<f64>,
    pub downtime: Option<f64>,
    pub heartbeat_gap: Option<f64>,
}

impl Rival {
    pub fn record(self) -> Value {
        json!({
            "total-time": self.total_time, "downtime": self.downtime, "heartbeat-gap": self.heartbeat_gap,
        })
    }
}

/// QEMU's row, where it was measured.
pub fn of(environment: Environment, workload: &str, path: &str) -> Option<Rival> {
    let ended = |total_time, downtime, heartbeat_gap| {
        Some(Rival { total_time: Some(total_time), downtime: Some(downtime), heartbeat_gap: Some(heartbeat_gap) })
    };
    match (environment, workload, path) {
        (Environment::Bochs, "idle", "pre-copy") => ended(5885.0, 317.0, 468.0),
        (Environment::Bochs, "idle", "post-copy") => ended(7057.0, 201.0, 6990.0),
        (Environment::Bochs, "calm", "pre-copy") => ended(9876.0, 365.0, 522.0),
        (Environment::Bochs, "unruly", "pre-copy") => {
            Some(Rival { total_time: None, downtime: None, heartbeat_gap: None })
        }
        (Environment::Bochs, "unruly", "post-copy") => ended(9859.0, 192.0, 8990.0),
        (Environment::Bochs, "storm", "pre-copy") => ended(8094.0, 319.0, 536.0),
        (Environment::Bochs, "storm", "post-copy") => ended(7448.0, 205.0, 6725.0),
        (Environment::Nested, "idle", "pre-copy") => ended(16597.0, 601.0, 1500.0),
        (Environment::Nested, "idle", "post-copy") => ended(13490.0, 270.0, 12600.0),
        (Environment::Nested, "unruly", "post-copy") => ended(24271.0, 662.0, 18200.0),
        _ => None,
    }
}

/// From the start to the guest's first heartbeat, in ms.
pub fn start(environment: Environment) -> Option<f64> {
    match environment {
        Environment::Bochs => Some(17_100.0),
        Environment::Nested => Some(47_000.0),
        Environment::Kvm => None,
    }
}
