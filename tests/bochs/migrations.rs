//! Migrations between two VMs of one host.

use libtest_mimic::Trial;

use crate::support::migration::{expect, expect_decision, migrate};
use crate::support::trial;

/// What a workload makes the rule choose, and why.
const RULE: [(&str, &str, &str); 4] = [
    ("calm", "pre-copy", "calm"),
    ("unruly", "post-copy", "unruly processes"),
    ("storm", "post-copy", "storm of birth and death of processes"),
    ("reboot", "post-copy", "unstable operating system"),
];

const PATHS: [&str; 5] = ["stop-and-copy", "demand", "pre-copy", "post-copy", "hybrid"];

/// The tests.
pub fn trials() -> Vec<Trial> {
    PATHS.into_iter().map(tiny_moves_by).chain(RULE.into_iter().map(linux_is_moved_by_the_rule)).collect()
}

fn linux_is_moved_by_the_rule((workload, path, condition): (&'static str, &'static str, &'static str)) -> Trial {
    trial(format!("linux_{workload}_moves_by_{path}_and_loses_nothing"), move || {
        let report = migrate("bochs", &format!("linux-{workload}"), &format!("--workload {workload}"))?;
        expect_decision(&report, path, condition)
    })
}

fn tiny_moves_by(path: &'static str) -> Trial {
    trial(format!("tiny_that_writes_moves_by_{path}_and_loses_nothing"), move || {
        let words = format!("--guest tiny --workload unruly --path {path}");
        let report = migrate("bochs", &format!("tiny-{path}"), &words)?;
        expect(&report, "/decision/chosen-by", &"user".into())?;
        expect(&report, "/migration/path", &path.into())
    })
}
