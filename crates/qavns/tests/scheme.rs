//! The two schemes as text and as numbers, and how a version moves.

use proptest::prelude::*;
use qavns::{FieldFault, GeneralVersion, Identifier, JS_DIGITS, ParseError, Reading, Release, Version};

fn release(before: &str, release: Release) -> String {
    let version: GeneralVersion = before.parse().expect("a version of the paper");
    version.after(release).to_string()
}

#[test]
fn the_papers_corrections_count_up_the_last_field() {
    assert_eq!(release("11.0.7.0", Release::Corrections), "12.0.7.1");
    assert_eq!(release("12.0.7.1", Release::Corrections), "13.0.7.2");
}

#[test]
fn the_papers_features_alone_leave_no_correction() {
    assert_eq!(release("11.0.7.0", Release::Features), "12.0.8.0");
}

#[test]
fn the_papers_features_with_corrections_leave_one() {
    let after = release("27.0.7.15", Release::FeaturesAndCorrections);
    assert_eq!(after, "28.0.8.1");
}

#[test]
fn the_papers_generation_begins_both_lists_again() {
    assert_eq!(release("235.1.14.772", Release::Generation), "236.2.0.0");
}

#[test]
fn a_version_at_its_limits_stays_there() {
    let most = format!("{0}.{0}.{0}.{0}", u64::MAX);
    assert_eq!(release(&most, Release::Corrections), most);
}

#[test]
fn the_identifier_is_one_use_of_the_general_scheme() {
    let identifier: Identifier = "125.2.7.40".parse().expect("four numbers");
    let general = GeneralVersion::from(identifier);
    assert_eq!(general.to_string(), "125.2.7.40");
}

#[test]
fn a_migration_starts_at_zero_jiffies_of_the_first_os_instance() {
    let mut version = Version::new();
    version.tick(7);
    version.restart();
    version.birth();
    version.modified(3);
    version.migration_start();
    let now = version.reading();
    assert_eq!(now.identifier.to_string(), "000000000000.1.0.0");
    let totals = now.totals;
    assert_eq!([totals.restarts, totals.births, totals.deaths, totals.pages_modified], [1, 1, 0, 3]);
}

#[test]
fn each_field_returns_to_zero_when_the_one_before_it_moves() {
    let mut version = Version::new();
    let mut step = |change: fn(&mut Version)| {
        change(&mut version);
        let Identifier { js, osin, pcn, dpcn } = version.reading().identifier;
        [js, osin, pcn, dpcn]
    };
    assert_eq!(step(|v| v.tick(5)), [5, 1, 0, 0]);
    assert_eq!(step(|v| v.modified(9)), [5, 1, 0, 9]);
    assert_eq!(step(Version::birth), [5, 1, 1, 0]);
    assert_eq!(step(|v| v.modified(4)), [5, 1, 1, 4]);
    assert_eq!(step(|v| v.tick(1)), [6, 1, 1, 4]);
    assert_eq!(step(Version::death), [6, 1, 2, 0]);
    assert_eq!(step(|v| v.modified(2)), [6, 1, 2, 2]);
    assert_eq!(step(|v| v.processes(0, 0)), [6, 1, 2, 2]);
    assert_eq!(step(Version::restart), [6, 2, 0, 0]);
}

#[test]
fn an_error_names_the_field_and_what_is_wrong_with_it() {
    let wrong = |text: &str| text.parse::<Identifier>().expect_err("not an identifier").to_string();
    assert_eq!(wrong("1.2.3"), "DPCN is missing");
    assert_eq!(wrong(""), "JS is missing");
    assert_eq!(wrong("1.+2.3.4"), "OSIN is not a decimal number");
    assert_eq!(wrong("1.2. 3.4"), "PCN is not a decimal number");
    assert_eq!(wrong("1.2.3.4.5"), "more than four fields");
    assert_eq!(
        "1.2.3.18446744073709551616".parse::<Identifier>(),
        Err(ParseError::Field { name: "DPCN", fault: FieldFault::TooLarge })
    );
}

/// One of the things that happen to a VM.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Tick(u64),
    Restart,
    Birth,
    Death,
    Modified(u64),
    MigrationStart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        any::<u64>().prop_map(Happening::Tick),
        Just(Happening::Restart),
        Just(Happening::Birth),
        Just(Happening::Death),
        any::<u64>().prop_map(Happening::Modified),
        Just(Happening::MigrationStart),
    ]
}

fn happen(version: &mut Version, what: Happening) {
    match what {
        Happening::Tick(jiffies) => version.tick(jiffies),
        Happening::Restart => version.restart(),
        Happening::Birth => version.birth(),
        Happening::Death => version.death(),
        Happening::Modified(pages) => version.modified(pages),
        Happening::MigrationStart => version.migration_start(),
    }
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(js: u64, osin: u64, pcn: u64, dpcn: u64) {
        let identifier = Identifier { js, osin, pcn, dpcn };
        prop_assert_eq!(identifier.to_string().parse(), Ok(identifier));
        let general = GeneralVersion::from(identifier);
        prop_assert_eq!(general.to_string().parse(), Ok(general));
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "[0-9.+ -]{0,40}|.{0,20}") {
        if let Ok(identifier) = text.parse::<Identifier>() {
            prop_assert_eq!(identifier.to_string().parse(), Ok(identifier));
        }
    }

    #[test]
    fn texts_sort_as_their_jiffies(
        a in 0..10_u64.pow(JS_DIGITS as u32), b in 0..10_u64.pow(JS_DIGITS as u32),
        rest_a: [u64; 3], rest_b: [u64; 3],
    ) {
        prop_assume!(a != b);
        let identifier = |js, [osin, pcn, dpcn]: [u64; 3]| Identifier { js, osin, pcn, dpcn };
        let (a, b) = (identifier(a, rest_a), identifier(b, rest_b));
        prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
    }

    #[test]
    fn totals_never_fall_whatever_happens(whats in prop::collection::vec(happening(), 0..50)) {
        let mut version = Version::new();
        for what in whats {
            let Reading { totals: before, .. } = version.reading();
            happen(&mut version, what);
            let Reading { totals: after, .. } = version.reading();
            prop_assert!(after.restarts >= before.restarts);
            prop_assert!(after.births >= before.births);
            prop_assert!(after.deaths >= before.deaths);
            prop_assert!(after.pages_modified >= before.pages_modified);
        }
    }

    #[test]
    fn between_migration_starts_the_identifier_only_moves_forward(
        whats in prop::collection::vec(happening(), 0..50),
    ) {
        let mut version = Version::new();
        for what in whats {
            let before = version.reading().identifier;
            happen(&mut version, what);
            let after = version.reading().identifier;
            if matches!(what, Happening::MigrationStart) {
                prop_assert_eq!(after, Identifier::START);
            } else {
                prop_assert!(after.js >= before.js && after.osin >= before.osin);
            }
        }
    }
}
