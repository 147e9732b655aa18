//! Turns command lines of the tools around a configuration into output and exit codes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the binary with `input` on its stdin.
fn call(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Exit code, stdout, stderr.
fn outcome(args: &[&str], input: &str) -> (i32, String, String) {
    let output = call(args, input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn fmt_formats_stdin_and_tells_what_is_wrong() {
    let formatted = "a \"b\" {\n\tc = 1\n}\n";
    for name in ["fmt", "format"] {
        let (code, out, _) = outcome(&[name], "a \"b\"{c=1\n}");
        assert_eq!((code, out.as_str()), (0, formatted));
    }
    assert_eq!(outcome(&["fmt", "-t", "-"], formatted).0, 0);
    let (code, out, error) = outcome(&["fmt", "--test"], "a{}");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(error, "Error: file <stdin> is not formatted correctly\n");
    let (code, _, error) = outcome(&["fmt"], "a = [");
    assert_eq!(code, 1);
    assert!(
        error.contains("<stdin>:1:6: expected ") && error.contains(" 1 | a = [\n"),
        "{error}"
    );
    assert_ne!(outcome(&["fmt", "-t", "-w", "x"], "").0, 0);
}

/// The configuration a Debian system has: its rules and alerts have no counterpart.
#[test]
fn a_configuration_of_an_installed_prometheus_is_converted() {
    let file = "/etc/prometheus/prometheus.yml";
    assert!(
        Path::new(file).try_exists().unwrap(),
        "prometheus is installed"
    );
    let (code, out, error) = outcome(&["convert", "--source-format=prometheus", file], "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        error.contains("(Error) The converter does not support"),
        "{error}"
    );
    let (code, out, _) = outcome(&["convert", "-f", "prometheus", "-b", file], "");
    assert_eq!(code, 0);
    assert!(
        out.starts_with("prometheus.scrape \"prometheus\" {\n\ttargets = [{\n"),
        "{out}"
    );
    assert_eq!(outcome(&["fmt", "-t"], &out).0, 0);
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let (code, out, _) = outcome(&["completions", shell], "");
        assert_eq!(code, 0);
        assert!(out.contains("config.bypass-conversion-errors"), "{shell}");
    }
    assert_ne!(outcome(&["completions", "tcsh"], "").0, 0);
}

#[test]
fn version_tells_target_and_profile() {
    let (code, out, _) = outcome(&["--version"], "");
    assert_eq!(code, 0);
    assert!(
        out.starts_with("penstock ") && out.contains("linux"),
        "{out}"
    );
}
