//! The decision: each line of the rule, the two policies, and the margin.

use core::time::Duration;

use proptest::prelude::*;
use qavns::{
    Condition, DEFAULT_TD, DEFAULT_TP, Decision, Line, Paper, ParseRatioError, PathChoice, Policy, Ratio, Robust,
    Sample, Version, td_from_link,
};

fn ratio(text: &str) -> Ratio {
    text.parse().expect("a ratio")
}

/// A sample that begins with the migration and sees what `happens` does.
fn sampled(happens: impl FnOnce(&mut Version)) -> Sample {
    let mut version = Version::new();
    version.tick(1000);
    version.modified(77);
    version.migration_start();
    let start = version.reading();
    happens(&mut version);
    Sample {
        start,
        end: version.reading(),
        ts: Duration::from_millis(500),
        jiffy: Duration::from_millis(4),
        harvest_period: Duration::from_millis(100),
    }
}

/// 125 jiffies with so many births and then so many pages.
fn busy(births: u64, pages: u64) -> Sample {
    sampled(|version| {
        version.tick(125);
        version.processes(births, 0);
        version.modified(pages);
    })
}

fn paper(sample: &Sample) -> Decision {
    Paper { tp: DEFAULT_TP, td: DEFAULT_TD }.decide(sample)
}

fn robust(sample: &Sample) -> Decision {
    Robust { tp: DEFAULT_TP, td: DEFAULT_TD }.decide(sample)
}

#[test]
fn a_restart_makes_the_operating_system_unstable() {
    let sample = sampled(|version| {
        version.tick(125);
        version.restart();
    });
    for decision in [paper(&sample), robust(&sample)] {
        assert_eq!(decision.condition.text(), "unstable operating system");
        assert_eq!(decision.path, PathChoice::PostCopy);
        let margin = decision.margin.expect("a line fired");
        assert_eq!((margin.line, margin.count), (Line::Restarts, 1));
        assert!(margin.ratio < Ratio::whole(1));
    }
}

#[test]
fn more_than_a_birth_each_tp_is_a_storm() {
    let sample = busy(16, 0);
    for decision in [paper(&sample), robust(&sample)] {
        let text = decision.condition.to_string();
        assert_eq!(text, "storm of birth and death of processes");
        assert_eq!(decision.path.to_string(), "post-copy");
        let margin = decision.margin.expect("a line fired");
        assert_eq!((margin.left, margin.right), (125, Ratio::whole(128)));
        assert_eq!(margin.ratio, ratio("125/128"));
    }
}

#[test]
fn more_than_a_page_each_td_is_unruly() {
    let sample = busy(0, 2_501);
    for decision in [paper(&sample), robust(&sample)] {
        assert_eq!(decision.condition.text(), "unruly processes");
        assert_eq!(decision.path, PathChoice::PostCopy);
    }
}

#[test]
fn a_comparison_that_ends_even_does_not_fire() {
    let even = Paper { tp: ratio("125/5"), td: ratio("1/100") };
    let decision = even.decide(&busy(5, 12_500));
    assert_eq!(decision.condition, Condition::Calm);
    assert_eq!(decision.path.to_string(), "pre-copy");
    assert_eq!(decision.margin.map(|margin| margin.ratio), Some(ratio("1")));
}

#[test]
fn calm_reports_the_line_that_came_nearest() {
    let margin = paper(&busy(2, 1_250)).margin.expect("both lines compared");
    assert_eq!((margin.line, margin.count), (Line::Pages, 1_250));
    assert_eq!(margin.ratio, Ratio::whole(2));
    let text = margin.to_string();
    assert_eq!(text, "jiffies < Td x pages modified: 125 against 125/2");
}

#[test]
fn a_guest_that_did_nothing_is_calm_without_a_margin() {
    for decision in [paper(&busy(0, 0)), robust(&busy(0, 0))] {
        assert_eq!(decision.condition, Condition::Calm);
        assert_eq!(decision.margin, None);
    }
}

#[test]
fn the_first_line_that_fires_names_the_condition() {
    let storm_and_unruly = busy(1000, 1_000_000);
    assert_eq!(paper(&storm_and_unruly).condition, Condition::ProcessStorm);
}

#[test]
fn the_paper_is_blind_to_writes_before_the_last_birth_and_robust_is_not() {
    let sample = sampled(|version| {
        version.tick(125);
        version.modified(1_000_000);
        version.birth();
    });
    assert_eq!(paper(&sample).condition, Condition::Calm);
    assert_eq!(robust(&sample).condition, Condition::UnrulyProcesses);
}

#[test]
fn td_is_what_the_link_carries() {
    assert_eq!(td_from_link(ratio("122")), ratio("1/122"));
    let dead_link = Robust { tp: DEFAULT_TP, td: td_from_link(Ratio::whole(0)) };
    let one_write = dead_link.decide(&busy(0, 1));
    assert_eq!(one_write.condition, Condition::UnrulyProcesses);
    let none = dead_link.decide(&busy(0, 0));
    assert_eq!(none.condition, Condition::Calm);
}

#[test]
fn a_ratio_is_one_or_two_numbers_and_never_over_zero() {
    assert_eq!(ratio("3").to_string(), "3");
    assert_eq!(ratio("3/4").to_string(), "3/4");
    assert_eq!(ratio("2/4"), ratio("1/2"));
    let wrong = |text: &str| text.parse::<Ratio>().expect_err("no ratio");
    assert_eq!(wrong("1/0"), ParseRatioError::ZeroDenominator);
    assert_eq!(wrong("/3").to_string(), "N of N/M is missing");
    assert_eq!(wrong("1/").to_string(), "M of N/M is missing");
    assert_eq!(wrong("1/2/3").to_string(), "M of N/M is not a decimal number");
    assert_eq!(wrong("-1").to_string(), "N of N/M is not a decimal number");
}

fn any_ratio() -> impl Strategy<Value = Ratio> {
    (any::<u64>(), 1..=u64::MAX).prop_filter_map("M = 0", |(n, m)| Ratio::new(n, m))
}

/// Thresholds near the values that samples have, so that both outcomes occur.
fn near_ratio() -> impl Strategy<Value = Ratio> {
    (0..200_u64, 1..200_u64).prop_filter_map("M = 0", |(n, m)| Ratio::new(n, m))
}

/// Ticks, births, deaths and pages in turns; without births and deaths when `still`.
fn samples(still: bool) -> impl Strategy<Value = Sample> {
    let most = if still { 1 } else { 4_u64 };
    let step = (0..20_u64, 0..most, 0..most, 0..2000_u64);
    prop::collection::vec(step, 0..20).prop_map(|steps| {
        sampled(|version| {
            for (jiffies, births, deaths, pages) in steps {
                version.tick(jiffies);
                version.processes(births, deaths);
                version.modified(pages);
            }
        })
    })
}

proptest! {
    #[test]
    fn a_printed_ratio_parses_back(ratio in any_ratio()) {
        let read: Ratio = ratio.to_string().parse().expect("its own text");
        prop_assert_eq!((read.numerator(), read.denominator()), (ratio.numerator(), ratio.denominator()));
    }

    #[test]
    fn a_ratio_compares_as_its_fraction(a in 0..1000_u64, b in 1..1000_u64, factor in 0..1000_u64, near in 0..3_u64) {
        let ratio = Ratio::new(a, b).expect("b > 0");
        let left = (a * factor / b + near).saturating_sub(1);
        prop_assert_eq!(ratio.times_exceeds(factor, left), left * b < a * factor);
        prop_assert_eq!(ratio.times(factor), Ratio::new(a * factor, b).expect("b > 0"));
    }

    #[test]
    fn differences_that_are_not_positive_never_fire(
        tp in any_ratio(), td in any_ratio(), jiffies: u64, before: [u64; 2], fall: [u64; 2],
    ) {
        let mut sample = busy(0, 0);
        sample.start.identifier.pcn = before[0];
        sample.start.identifier.dpcn = before[1];
        sample.end.identifier.js = jiffies;
        sample.end.identifier.pcn = before[0].saturating_sub(fall[0]);
        sample.end.identifier.dpcn = before[1].saturating_sub(fall[1]);
        prop_assert_eq!(Paper { tp, td }.decide(&sample).condition, Condition::Calm);
    }

    #[test]
    fn raising_a_threshold_never_calms_a_guest(
        sample in samples(false), tp in near_ratio(), td in near_ratio(), more in near_ratio(), raise_tp: bool,
    ) {
        let (higher_tp, higher_td) = if raise_tp { (tp.max(more), td) } else { (tp, td.max(more)) };
        let pairs = [
            (Paper { tp, td }.decide(&sample), Paper { tp: higher_tp, td: higher_td }.decide(&sample)),
            (Robust { tp, td }.decide(&sample), Robust { tp: higher_tp, td: higher_td }.decide(&sample)),
        ];
        for (low, high) in pairs {
            prop_assert!(low.condition == Condition::Calm || high.condition != Condition::Calm);
        }
    }

    #[test]
    fn the_policies_agree_while_pcn_stands_still(
        sample in samples(true), tp in near_ratio(), td in near_ratio(),
    ) {
        let (paper, robust) = (Paper { tp, td }.decide(&sample), Robust { tp, td }.decide(&sample));
        prop_assert_eq!(paper.condition, robust.condition);
        prop_assert_eq!(paper.margin, robust.margin);
    }

    #[test]
    fn where_the_policies_differ_the_paper_missed_writes_before_pcn_moved(
        sample in samples(false), tp in near_ratio(), td in near_ratio(),
    ) {
        let (paper, robust) = (Paper { tp, td }.decide(&sample), Robust { tp, td }.decide(&sample));
        if paper.condition != robust.condition {
            prop_assert!(sample.births() + sample.deaths() > 0);
            prop_assert_eq!(paper.condition, Condition::Calm);
            prop_assert_eq!(robust.condition, Condition::UnrulyProcesses);
        }
    }

    #[test]
    fn the_path_follows_the_condition_and_the_margin_its_line(
        sample in samples(false), tp in near_ratio(), td in near_ratio(),
    ) {
        let decision = Robust { tp, td }.decide(&sample);
        let calm = decision.condition == Condition::Calm;
        prop_assert_eq!(calm, decision.path == PathChoice::PreCopy);
        if let Some(margin) = decision.margin {
            prop_assert_eq!(calm, margin.ratio >= Ratio::whole(1));
        } else {
            prop_assert!(calm);
        }
    }

    #[test]
    fn no_sample_and_no_threshold_panics(
        start: [u64; 8], end: [u64; 8], tp in any_ratio(), td in any_ratio(),
    ) {
        let reading = |[js, osin, pcn, dpcn, restarts, births, deaths, pages_modified]: [u64; 8]| qavns::Reading {
            identifier: qavns::Identifier { js, osin, pcn, dpcn },
            totals: qavns::Totals { restarts, births, deaths, pages_modified },
        };
        let sample = Sample { start: reading(start), end: reading(end), ..busy(0, 0) };
        for decision in [Paper { tp, td }.decide(&sample), Robust { tp, td }.decide(&sample)] {
            prop_assert_eq!(decision.path, decision.condition.path());
        }
    }
}
