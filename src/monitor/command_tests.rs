use super::*;

fn read(line: &str) -> Command {
    Command::parse(line).expect(line)
}

fn refused(line: &str) -> String {
    Command::parse(line).expect_err(line).to_string()
}

#[test]
fn commands_of_one_word_are_read() {
    assert_eq!(read("status"), Command::Status);
    assert_eq!(read("  quit "), Command::Quit);
    assert_eq!(read("policy robust"), Command::Policy(PolicyName::Robust));
    let vm = "linux".to_string();
    assert_eq!(read("cancel vm=linux"), Command::Cancel { vm: vm.clone() });
    assert_eq!(read("dirty vm=linux"), Command::Dirty { vm: vm.clone(), end: false });
    assert_eq!(read("dirty end=yes vm=linux"), Command::Dirty { vm, end: true });
    assert_eq!(refused("dirty"), "`dirty` needs vm=NAME");
}

#[test]
fn a_migration_has_defaults() {
    let Command::Migrate(migrate) = read("migrate vm=linux to=10.0.0.2:4444") else {
        panic!("not a migration");
    };
    let to = Target::Host(SocketAddrV4::new([10, 0, 0, 2].into(), 4444));
    assert_eq!((migrate.vm.as_str(), migrate.to), ("linux", to));
    assert_eq!((migrate.path, migrate.policy, migrate.verify), (PathRequest::Auto, None, false));
    assert_eq!((migrate.ts, migrate.latency), (DEFAULT_TS, Duration::ZERO));
    assert_eq!(migrate.downtime_limit, Duration::from_millis(300));
    assert_eq!((migrate.tp, migrate.td, migrate.bandwidth), (None, None, None));
    assert_eq!(migrate.tuning, Tuning::default());
    assert!(!migrate.tuning.auto_converge);
}

#[test]
fn a_migration_takes_every_key_in_any_order() {
    let line = "migrate verify=yes downtime-limit=50ms latency=100us bandwidth=125000000 td=1/122 tp=4 \
                auto-converge=yes rate-limit=62500000 max-rounds=9 max-bytes=1000000 hybrid-rounds=2 demand-period=3s \
                encodings=lz4,zero ts=1s policy=robust path=hybrid to=memory vm=tiny";
    let expected = Migrate {
        vm: "tiny".to_string(),
        to: Target::Memory,
        path: PathRequest::Hybrid,
        policy: Some(PolicyName::Robust),
        ts: Duration::from_secs(1),
        tp: Some(Ratio::whole(4)),
        td: Ratio::new(1, 122),
        bandwidth: NonZeroU64::new(125_000_000),
        latency: Duration::from_micros(100),
        downtime_limit: Duration::from_millis(50),
        tuning: Tuning {
            auto_converge: true,
            rate_limit: Some(62_500_000),
            max_rounds: Some(9),
            max_bytes: Some(1_000_000),
            hybrid_rounds: Some(2),
            demand_period: Some(Duration::from_secs(3)),
            encodings: Encodings::read("zero,lz4"),
        },
        verify: true,
    };
    assert_eq!(read(line), Command::Migrate(expected));
}

#[test]
fn every_path_is_read_by_its_own_word() {
    for path in PathRequest::ALL {
        let line = alloc::format!("migrate vm=a to=memory path={}", path.text());
        assert!(matches!(read(&line), Command::Migrate(Migrate { path: p, .. }) if p == path));
    }
}

#[test]
fn a_bandwidth_of_zero_is_no_limit() {
    let line = "migrate vm=a to=memory bandwidth=0";
    let unlimited = matches!(read(line), Command::Migrate(m) if m.bandwidth.is_none());
    assert!(unlimited);
}

#[test]
fn input_keeps_the_text_as_it_was_typed() {
    let typed = |line: &str| match read(line) {
        Command::Input { vm, text } => (vm, text),
        other => panic!("{other:?}"),
    };
    let pair = |vm: &str, text: &str| (vm.to_string(), text.to_string());
    assert_eq!(typed("input vm=linux echo  a=b "), pair("linux", "echo  a=b "));
    assert_eq!(typed("input vm=linux"), pair("linux", ""));
}

#[test]
fn a_watch_is_turned_on_with_or_without_pages_and_off() {
    let watch = |how| Command::Watch { vm: "linux".to_string(), how };
    assert_eq!(read("watch vm=linux on"), watch(Some(Watching { pages: false })));
    assert_eq!(read("watch vm=linux  on pages=yes"), watch(Some(Watching { pages: true })));
    assert_eq!(read("watch vm=linux off "), watch(None));
    assert_eq!(refused("watch on"), "`on` needs a value: on=...");
    assert_eq!(refused("watch"), "`watch` needs vm=NAME first");
    assert_eq!(refused("watch vm=linux"), "`watch` needs on or off after the name");
    assert_eq!(refused("watch vm=linux maybe"), "`watch` needs on or off after the name");
    assert_eq!(refused("watch vm=linux off pages=yes"), "`watch` does not take `pages=yes`");
    assert_eq!(refused("watch vm=linux on ts=1s"), "unknown option `ts`");
}

#[test]
fn the_identifier_is_turned_off_and_on() {
    let identifier = |on| Command::Identifier { vm: "linux".to_string(), on };
    assert_eq!(read("identifier vm=linux off"), identifier(false));
    assert_eq!(read(" identifier  vm=linux on "), identifier(true));
    assert_eq!(refused("identifier"), "`identifier` needs vm=NAME first");
    assert_eq!(refused("identifier vm=linux"), "`identifier` needs on or off after the name");
    assert_eq!(refused("identifier vm=linux on pages=yes"), "`identifier` does not take `pages=yes`");
}

#[test]
fn a_migration_is_paused_and_recovered_by_the_name_of_its_vm() {
    let vm = || "a".to_string();
    let to = Target::Host(SocketAddrV4::new([10, 0, 0, 2].into(), 4444));
    assert_eq!(read("recover vm=a to=10.0.0.2:4444"), Command::Recover { vm: vm(), to });
    assert_eq!(read("recover vm=a to=memory"), Command::Recover { vm: vm(), to: Target::Memory });
    assert_eq!(refused("recover vm=a"), "`recover` needs to=IP:PORT or to=memory");
    assert_eq!(read("pause vm=a"), Command::Pause { vm: vm() });
    assert_eq!(refused("pause"), "`pause` needs vm=NAME");
}

#[test]
fn errors_say_what_was_wrong() {
    assert_eq!(refused(" "), "no command");
    assert_eq!(refused("migrat vm=a"), "unknown command `migrat`");
    assert_eq!(refused("status now"), "`status` does not take `now`");
    assert_eq!(refused("migrate to=memory"), "`migrate` needs vm=NAME");
    assert_eq!(refused("migrate vm=a"), "`migrate` needs to=IP:PORT or to=memory");
    assert_eq!(refused("cancel vm=a to=memory"), "unknown option `to`");
    assert_eq!(refused("cancel a"), "`a` needs a value: a=...");
    assert_eq!(refused("cancel vm=a vm=b"), "`vm` is given twice");
    assert_eq!(refused("policy best"), "`policy` needs a name: paper or robust");
    let td = "`td=1/0` cannot be used: td takes N or N/M, M not 0";
    assert_eq!(refused("migrate vm=a to=memory td=1/0"), td);
    for word in
        ["rate-limit=0", "max-rounds=0", "max-rounds=1001", "max-bytes=-1", "hybrid-rounds=x", "demand-period=5"]
    {
        let message = refused(&alloc::format!("migrate vm=a to=memory {word}"));
        assert!(message.starts_with(&alloc::format!("`{word}` cannot be used")), "{message}");
    }
    assert_eq!(
        refused("migrate vm=a to=memory encodings=zero,zip"),
        "`encodings=zero,zip` cannot be used: encodings takes all, none, or some of zero,same,delta,lz4"
    );
    let long = "s".repeat(LONGEST_LINE + 1);
    assert_eq!(refused(&long), "a command has at most 1024 bytes");
}

#[test]
fn no_line_panics() {
    let pieces =
        ["migrate", "watch", "on", "vm=", "input", "=", " ", "é", "\u{0}", "td=", "/", "9999999999999999999999", "ms"];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let _ = Command::parse(&alloc::format!("{a}{b} {c}"));
                let _ = Command::parse(&alloc::format!("{a} {b}{c}"));
            }
        }
    }
}

#[test]
fn td_comes_from_the_link_unless_one_was_given() {
    let link = Some(Ratio::whole(122));
    let calm = qavns::Sample {
        start: qavns::Reading::default(),
        end: qavns::Reading::default(),
        ts: DEFAULT_TS,
        jiffy: Duration::from_millis(4),
        harvest_period: Duration::from_millis(100),
    };
    let td = |name: PolicyName, td, link| name.rule(None, td, link).decide(&calm).td;
    assert_eq!(Some(td(PolicyName::Robust, None, link)), Ratio::new(1, 122));
    assert_eq!(td(PolicyName::Robust, Some(Ratio::whole(9)), link), Ratio::whole(9));
    assert_eq!(td(PolicyName::Robust, None, None), DEFAULT_TD);
    assert_eq!(Some(td(PolicyName::Paper, None, link)), Ratio::new(1, 122));
}
