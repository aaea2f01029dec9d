//! The model on a terminal.

use std::time::Duration;

use qavns::{Condition, Ratio};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, RenderDirection, Sparkline};

use super::model::{Counts, Model, Phase};

/// Columns of text before a history.
const LABEL: u16 = 46;
/// Columns of the table of exits.
const EXITS: u16 = 44;

/// What a condition is drawn in, and its letter in the history.
fn look(condition: Condition) -> (Color, &'static str) {
    match condition {
        Condition::Calm => (Color::Green, "·"),
        Condition::UnrulyProcesses => (Color::Yellow, "U"),
        Condition::ProcessStorm => (Color::Magenta, "S"),
        Condition::UnstableOperatingSystem => (Color::Red, "R"),
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame, model: &Model) {
    let outer = Block::bordered().title(title(model)).title_bottom(" q ends ");
    let inner = outer.inner(frame.area());
    frame.render_widget(outer, frame.area());
    let [identifier, condition, margin, _, fields, history, _, below, heartbeat] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(8),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(inner);
    frame.render_widget(identifier_line(model), identifier);
    frame.render_widget(condition_line(model), condition);
    frame.render_widget(Line::from(margin_text(model)).dim(), margin);
    let rows = Layout::vertical([Constraint::Length(2); 4]).split(fields);
    for (field, row) in fields_of(model).into_iter().zip(rows.iter()) {
        draw_field(frame, model, field, *row);
    }
    draw_history(frame, model, history);
    let [exits, console] = Layout::horizontal([Constraint::Length(EXITS), Constraint::Min(0)]).areas(below);
    draw_exits(frame, model, exits);
    draw_console(frame, model, console);
    frame.render_widget(Line::from(heartbeat_text(model)), heartbeat);
}

fn title(model: &Model) -> String {
    let memory = model.terms.map(|terms| format!(", {} MiB", terms.memory >> 20)).unwrap_or_default();
    let state = match (&model.phase, model.watched()) {
        (Phase::Starting, _) => "the host starts".to_owned(),
        (Phase::Booting, _) => "the guest starts".to_owned(),
        (Phase::Failed(reason), _) => reason.clone(),
        (_, Some(time)) => format!("watched for {:.1} s", time.as_secs_f64()),
        (_, None) => "ended".to_owned(),
    };
    format!(" {}{memory}: {state} ", model.title)
}

fn identifier_line(model: &Model) -> Line<'static> {
    let Some(reading) = model.reading else { return Line::from("no identifier yet") };
    Line::from(vec![Span::from("JS.OSIN.PCN.DPCN  "), Span::from(reading.identifier.to_string()).bold()])
}

fn condition_line(model: &Model) -> Line<'static> {
    match (&model.decision, model.watched()) {
        (Some(decision), _) => {
            let (color, _) = look(decision.condition);
            let name = format!(" {} ", decision.condition.text().to_uppercase());
            Line::from(vec![
                Span::from("the rule now      "),
                Span::styled(name, Style::new().fg(Color::Black).bg(color).add_modifier(Modifier::BOLD)),
                Span::from(format!(" -> {}", decision.path)),
            ])
        }
        (None, Some(_)) => Line::from("the rule now      (the first Ts is not over)"),
        (None, None) => Line::from("the rule now      (not watched yet)"),
    }
}

fn margin_text(model: &Model) -> String {
    let margin = model.decision.and_then(|decision| decision.margin);
    let margin = margin.map(|margin| format!("{margin}; ")).unwrap_or_default();
    format!("                  {margin}{}", model.rule)
}

/// One of the four fields with what moves it.
struct Field {
    name: &'static str,
    value: u64,
    rates: String,
    /// What of a column its history shows, a second.
    of: fn(&Counts) -> u64,
    /// What fills a column's height: so many a second fire the rule.
    full: u64,
    color: Color,
}

fn fields_of(model: &Model) -> [Field; 4] {
    let id = model.reading.map(|reading| reading.identifier).unwrap_or_default();
    let lately = model.lately();
    let rate = |count| lately.rate(count);
    let jiffy = model.terms.map_or(Duration::from_millis(4), |terms| terms.jiffy);
    let jiffies = 1_000_000 / u64::try_from(jiffy.as_micros()).unwrap_or(u64::MAX).max(1);
    let firing = |threshold: Ratio| match Ratio::divide(jiffies, threshold, 1) {
        Some(count) => (count.numerator() / count.denominator()).max(1),
        None => 1,
    };
    let restarts = match &model.restart {
        Some(restart) => {
            let ago = model.now.saturating_sub(restart.at) as f64 / 1e6;
            format!("{}, {ago:.1} s ago", restart.cause)
        }
        None => "no restart".to_owned(),
    };
    [
        Field {
            name: "JS",
            value: id.js,
            rates: format!("{} jiffies/s", rate(lately.jiffies)),
            of: |counts| counts.rate(counts.jiffies),
            full: jiffies.max(1),
            color: Color::Cyan,
        },
        Field {
            name: "OSIN",
            value: id.osin,
            rates: restarts,
            of: |counts| counts.restarts,
            full: 1,
            color: look(Condition::UnstableOperatingSystem).0,
        },
        Field {
            name: "PCN",
            value: id.pcn,
            rates: format!("births {}/s, deaths {}/s", rate(lately.births), rate(lately.deaths)),
            of: |counts| counts.rate(counts.births + counts.deaths),
            full: firing(model.rule.tp),
            color: look(Condition::ProcessStorm).0,
        },
        Field {
            name: "DPCN",
            value: id.dpcn,
            rates: format!("{} pages/s", rate(lately.pages)),
            of: |counts| counts.rate(counts.pages),
            full: firing(model.rule.td),
            color: look(Condition::UnrulyProcesses).0,
        },
    ]
}

fn draw_field(frame: &mut Frame, model: &Model, field: Field, row: Rect) {
    let [label, spark] = Layout::horizontal([Constraint::Length(LABEL), Constraint::Min(0)]).areas(row);
    let lines = vec![
        Line::from(vec![
            Span::styled(format!("{:<5}", field.name), Style::new().fg(field.color).bold()),
            Span::from(format!("{:>12}", field.value)).bold(),
            Span::from(format!("  {}", field.rates)),
        ]),
        Line::from(""),
    ];
    frame.render_widget(Paragraph::new(lines), label);
    // The latest column is on the right.
    let data: Vec<u64> = model.columns().rev().map(|column| (field.of)(&column.counts)).collect();
    let most = data.iter().copied().max().unwrap_or_default().max(field.full);
    let sparkline = Sparkline::default().data(data).max(most).direction(RenderDirection::RightToLeft);
    frame.render_widget(sparkline.style(Style::new().fg(field.color)), spark);
}

fn draw_history(frame: &mut Frame, model: &Model, row: Rect) {
    let [label, cells] = Layout::horizontal([Constraint::Length(LABEL), Constraint::Min(0)]).areas(row);
    frame.render_widget(Line::from("what the rule named: · calm U unruly S storm R"), label);
    let shown = model.columns().rev().take(usize::from(cells.width)).map(|column| match column.condition.map(look) {
        Some((color, letter)) => Span::styled(letter, Style::new().fg(color).bold()),
        None => Span::from(" "),
    });
    let mut shown: Vec<Span> = shown.collect();
    shown.reverse();
    frame.render_widget(Line::from(shown).right_aligned(), cells);
}

fn draw_exits(frame: &mut Frame, model: &Model, area: Rect) {
    let block = Block::bordered().title(format!(" exits: {}/s ", model.exit_rate()));
    let mut exits: Vec<_> = model.exits.iter().collect();
    exits.sort_by_key(|(_, exits)| std::cmp::Reverse((exits.rate, exits.count)));
    let lines = exits
        .into_iter()
        .map(|(reason, exits)| Line::from(format!("{reason:<20} {:>8}/s {:>10}", exits.rate, exits.count)));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
}

fn draw_console(frame: &mut Frame, model: &Model, area: Rect) {
    let block = Block::bordered().title(" console ");
    let height = usize::from(block.inner(area).height);
    let last = model.console.iter().skip(model.console.len().saturating_sub(height));
    // What a guest prints is no command to this terminal.
    let plain = |text: &String| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<Line> = last.map(|text| Line::from(plain(text))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn heartbeat_text(model: &Model) -> String {
    let beats = &model.heartbeats;
    let Some((number, at)) = beats.last() else { return "no heartbeat yet".to_owned() };
    let ago = (model.now as f64 / 1e3 - at).max(0.0) / 1e3;
    let mut text = format!("heartbeat {number}, {ago:.1} s ago; longest silence {:.0} ms", beats.longest_gap);
    if beats.errors > 0 {
        text += &format!("; the guest found {} errors in its memory", beats.errors);
    }
    text
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
