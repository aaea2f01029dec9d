//! The table of what watching costs.

use serde_json::{Value, json};

use super::figures::{Spread, Stretch, losses, median, reasons};
use super::{Price, State};

/// What is aimed at: the most that a state may cost.
fn aim(state: State) -> Option<f64> {
    match state {
        State::Off => None,
        State::On => Some(0.005),
        State::Sample => Some(0.025),
    }
}

/// One line a state.
pub fn table(prices: &[Price]) -> String {
    let mut lines = vec![format!(
        "{:<30} {:>12} {:>26} {:>9} {:>9} {:>9}   by reason, a second",
        "guest, how it is watched", "work a s", "loss % (aim)", "host %", "harvests", "exits"
    )];
    for price in prices {
        lines.extend(State::ALL.map(|state| line(price, state)));
    }
    lines.join("\n") + "\n"
}

fn line(Price { environment, guest, stretches }: &Price, state: State) -> String {
    let figure = |of: fn(&Stretch) -> f64| median(stretches, state, of);
    let loss = losses(stretches, state).filter(|_| state != State::Off);
    let text = format!(
        "{:<30} {:>12.1} {:>26} {:>9.3} {:>9.2} {:>9.0}   {}",
        format!("{environment} {guest} {}", state.name()),
        figure(Stretch::rate),
        loss.map(|loss| show_loss(loss, state)).unwrap_or_default(),
        100.0 * figure(Stretch::host_share),
        figure(Stretch::harvests),
        figure(Stretch::all_exits),
        exits(stretches, state),
    );
    text.trim_end().to_owned()
}

fn show_loss(loss: Spread, state: State) -> String {
    let percent = |part: f64| format!("{:.2}", 100.0 * part);
    let aim = aim(state).map(|aim| format!(" ({})", 100.0 * aim)).unwrap_or_default();
    format!("{} [{}, {}]{aim}", percent(loss.median), percent(loss.least), percent(loss.most))
}

/// The most frequent first; what happens less than once in two seconds is left out.
fn exits(stretches: &[Stretch], state: State) -> String {
    let rate = |reason| median(stretches, state, |stretch| stretch.exits(reason));
    let mut rates: Vec<(&str, f64)> = reasons(stretches).into_iter().map(|reason| (reason, rate(reason))).collect();
    rates.retain(|(_, rate)| *rate >= 0.5);
    rates.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    rates.iter().map(|(reason, rate)| format!("{reason} {rate:.0}")).collect::<Vec<_>>().join(", ")
}

/// All of it, each stretch by itself too.
pub fn record(Price { environment, guest, stretches }: &Price) -> Value {
    let stretch = |stretch: &Stretch| {
        let exits = reasons(stretches).into_iter().map(|reason| (reason, stretch.exits(reason)));
        json!({
            "state": stretch.state.name(), "work": stretch.rate(), "host-share": stretch.host_share(),
            "harvests": stretch.harvests(), "harvest-entries": stretch.entries(),
            "exits": exits.collect::<std::collections::BTreeMap<_, _>>(),
        })
    };
    let loss = |state| {
        losses(stretches, state)
            .map(|Spread { median, least, most }| json!({"median": median, "least": least, "most": most}))
    };
    json!({
        "environment": environment.to_string(), "guest": guest, "loss-on": loss(State::On),
        "loss-sample": loss(State::Sample), "a-second": stretches.iter().map(stretch).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::stretch;
    use super::*;
    use crate::env::Environment;

    #[test]
    fn each_state_has_a_line_with_its_loss_beside_the_aim_and_its_exits() {
        let rates = [(State::Off, 1000), (State::On, 999), (State::Sample, 970), (State::Off, 1000)];
        let stretches = rates.map(|(state, rate)| stretch(state, rate)).into();
        let price = Price { environment: Environment::Bochs, guest: "calm", stretches };
        let text = table(&[price]);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "bochs calm off 1000.0 1.000 10.00 100 preemption-timer 100");
        assert_eq!(lines[2], "bochs calm on 999.0 0.10 [0.10, 0.10] (0.5) 1.000 10.00 100 preemption-timer 100");
        assert_eq!(lines[3], "bochs calm sample 970.0 3.00 [3.00, 3.00] (2.5) 1.000 10.00 100 preemption-timer 100");
    }

    #[test]
    fn the_record_has_each_stretch() {
        let stretches = vec![stretch(State::Off, 1000), stretch(State::On, 900), stretch(State::Off, 1000)];
        let record = record(&Price { environment: Environment::Nested, guest: "storm", stretches });
        assert_eq!(record["a-second"][1]["work"], 900.0);
        assert_eq!(record["a-second"][1]["exits"]["preemption-timer"], 100.0);
        assert!((record["loss-on"]["median"].as_f64().unwrap() - 0.1).abs() < 1e-12);
        assert!(record["loss-sample"].is_null());
    }
}
