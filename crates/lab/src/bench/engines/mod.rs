//! The speed of the engines alone, over a simulated link: figures that depend on no emulated machine.

mod cost;
mod postcopy;
mod precopy;
mod sim;
mod traces;

use migration::Micros;
use serde_json::{Map, Value, json};

use super::table::line;

/// The link: 1 Gbit/s, and 100 us one way.
const BANDWIDTH: u64 = 125_000_000;
const LATENCY: Micros = 100;

/// The figures, as they come.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    figure: String,
    /// None: the migration did not end well.
    measured: Option<f64>,
    compared: String,
}

impl Table {
    fn add(&mut self, figure: &str, measured: Option<f64>, compared: &str) {
        self.rows.push(Row { figure: figure.to_owned(), measured, compared: compared.to_owned() });
    }

    fn ratio(&mut self, figure: &str, of: Option<u64>, to: Option<u64>, compared: &str) {
        self.add(figure, of.zip(to).map(|(of, to)| of as f64 / to as f64), compared);
    }

    /// Whether every migration ended well.
    pub fn is_whole(&self) -> bool {
        self.rows.iter().all(|row| row.measured.is_some())
    }

    /// For people.
    pub fn text(&self) -> String {
        let shown = |row: &Row| {
            let measured = row.measured.map_or("FAILED".to_owned(), |value| format!("{value:.3}"));
            line(&row.figure, &measured, &row.compared)
        };
        let lines: Vec<String> = self.rows.iter().map(shown).collect();
        lines.join("\n") + "\n"
    }

    /// For programs.
    pub fn record(&self) -> Value {
        let pairs = self.rows.iter().map(|row| (row.figure.clone(), json!(row.measured)));
        Value::Object(Map::from_iter(pairs))
    }
}

/// Takes all figures: some seconds.
pub fn measure() -> Table {
    let mut table = Table::default();
    postcopy::rows(&mut table);
    precopy::rows(&mut table);
    cost::rows(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_measured_is_said() {
        let mut table = Table::default();
        table.ratio("bytes / floor", Some(3), Some(2), "1");
        assert!(table.is_whole());
        table.add("requests", None, "");
        assert!(!table.is_whole());
        let lines: Vec<Vec<String>> =
            table.text().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        assert_eq!(lines, [vec!["bytes", "/", "floor", "1.500", "1"], vec!["requests", "FAILED"]]);
        assert_eq!(table.record(), json!({"bytes / floor": 1.5, "requests": null}));
    }
}
