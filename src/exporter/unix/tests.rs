//! Tables, and what becomes of collectors that fail.

use std::collections::BTreeSet;

use super::*;

#[test]
fn the_tables_are_in_order_and_names_are_unique() {
    let here: Vec<&str> = names().collect();
    let mut all: Vec<&str> = here.iter().chain(&OTHERS).copied().collect();
    assert!(here.is_sorted() && OTHERS.is_sorted());
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    assert_eq!(Named::of("cpu"), Named::Here("cpu"));
    assert_eq!(Named::of("zfs"), Named::Elsewhere);
    assert_eq!(Named::of("cup"), Named::Unknown);
}

#[test]
fn what_is_not_there_fails_alone() {
    let exporter = Exporter::new(
        "x",
        Options {
            collectors: BTreeSet::from(["loadavg", "uname"]),
            procfs: "/no/such".into(),
            ..Options::default()
        },
    );
    let page = exporter.collect();
    let success = "node_scrape_collector_success{collector=";
    assert!(
        page.contains(&format!("{success}\"loadavg\"}} 0\n")),
        "{page}"
    );
    assert!(
        page.contains(&format!("{success}\"uname\"}} 1\n")),
        "{page}"
    );
    assert!(page.contains("node_uname_info{") && !page.contains("process_"));
}

#[test]
fn a_failure_is_told_when_it_begins_and_when_it_ends() {
    let exporter = Exporter::new("x", Options::default());
    let told = || exporter.told.lock().clone();
    exporter.tell("cpu", Err(Problem::Failed("broken".to_owned())));
    assert_eq!(told(), BTreeMap::from([("cpu", "broken".to_owned())]));
    exporter.tell("cpu", Err(Problem::NoData));
    assert!(told().is_empty());
}

#[test]
fn what_is_not_included_is_excluded() {
    let chosen = Chosen {
        include: Pattern::new("^eth").ok(),
        exclude: Pattern::new("1$").unwrap(),
    };
    let takes: Vec<bool> = ["eth0", "eth1", "lo"].map(|name| chosen.takes(name)).into();
    assert_eq!(takes, [true, false, false]);
    assert!(Chosen::default().takes("anything"));
}
