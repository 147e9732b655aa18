//! The demo of the README, short: load, outage, SIGKILL, and every sample accounted for.
use std::process::Command;

#[test]
fn the_demo_finds_every_acknowledged_sample() {
    let demo = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args([
            "demo",
            "--duration",
            "6s",
            "--outage",
            "3s",
            "--series",
            "3000",
        ])
        .output()
        .unwrap();
    let said = [demo.stdout, demo.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(demo.status.success(), "{said}");
    let value = |row: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(row));
        let text = line.unwrap_or_else(|| panic!("no {row} in\n{said}"));
        text.split_whitespace().last().unwrap().replace(',', "")
    };
    assert_eq!(
        (value("missing"), value("out of order")),
        ("0".into(), "0".into())
    );
    assert_eq!(value("samples delivered"), value("samples acknowledged"));
    assert!(said.contains("killed with SIGKILL"), "{said}");
}
