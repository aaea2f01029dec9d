//! One migration by the lab, judged by the values of its report; times are never judged.

use anyhow::{Context, Result, anyhow, ensure};
use lab::options::MigrateOptions;
use lab::session::{self, watch::Blind};
use serde_json::Value;

use super::folder;

/// Moves a guest with the options that a person would type, and takes nothing but a clean report.
pub fn migrate(environment: &str, test: &str, words: &str) -> Result<Value> {
    let out = folder(environment, test);
    let mut options = MigrateOptions::from_words(&format!("--env {environment} --verify {words}"))?;
    options.hosts.out = Some(out.clone());
    let run = session::migrate(&options, &mut Blind)?;
    if let Some(error) = run.report.error {
        return Err(anyhow!("{error}; see {}", out.display()));
    }
    let report = run.report.json;
    check(&report).with_context(|| format!("see {}", out.display()))?;
    Ok(report)
}

/// Nothing was lost, nothing changed on the way, and pages were in fact compared.
fn check(report: &Value) -> Result<()> {
    expect(report, "/migration/status", &"completed".into())?;
    for zero in ["pages-different", "heartbeats-lost", "guest-errors"] {
        expect(report, &format!("/verify/{zero}"), &0.into())?;
    }
    let compared = report.pointer("/verify/pages-compared").and_then(Value::as_u64);
    ensure!(compared.is_some_and(|pages| pages > 0), "pages-compared is {compared:?}");
    Ok(())
}

/// The value at a JSON pointer (RFC 6901) is this one.
pub fn expect(report: &Value, pointer: &str, wanted: &Value) -> Result<()> {
    let found = report.pointer(pointer).unwrap_or(&Value::Null);
    ensure!(found == wanted, "{pointer} is {found}, not {wanted}");
    Ok(())
}

/// The rule chose this path for this condition, and the migration took it.
pub fn expect_decision(report: &Value, path: &str, condition: &str) -> Result<()> {
    expect(report, "/decision/condition", &condition.into())?;
    expect(report, "/decision/path", &path.into())?;
    expect(report, "/decision/chosen-by", &"policy".into())?;
    expect(report, "/migration/path", &path.into())
}
