//! Turns `penstock convert` into a configuration made of another program's.
//!
//! | file | does |
//! |---|---|
//! | `prometheus` | a Prometheus configuration -> components |
//! | `scrape`, `discovery`, `relabel`, `write`, `http` | a part of it each |
//! | `source` | YAML maps -> fields, faults, findings |
//! | `target` | names and expressions -> text without layout |
//!
//! # Failure
//! What cannot be converted is told with its level. A critical finding ends it; errors do, unless
//! `--bypass-errors` says to go on without what they are about.

mod discovery;
mod http;
mod prometheus;
mod relabel;
mod scrape;
mod source;
mod target;
mod write;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

pub(crate) use prometheus::prometheus;
pub(crate) use source::{Finding, Level};

/// Converts the configuration of another program.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The file; stdin where there is none, or `-`.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// What it is a configuration of.
    #[arg(short = 'f', long, value_name = "FORMAT")]
    source_format: Format,
    /// Where the result goes; by default to stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A file for what was found.
    #[arg(short, long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Go on without what cannot be converted.
    #[arg(short, long)]
    bypass_errors: bool,
    /// Arguments the other program is started with.
    #[arg(
        short,
        long,
        value_name = "ARGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    extra_args: String,
}

/// Configurations by the program they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Prometheus,
    Promtail,
    Static,
    Otelcol,
}

/// Converts what `options` name.
///
/// # Errors
/// It cannot be read or written, or a finding ends it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    convert(options, &mut std::io::stdin(), &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

fn convert(options: &Options, input: &mut dyn Read, output: &mut dyn Write) -> anyhow::Result<()> {
    let file = options.file.as_deref().filter(|&file| file != "-");
    let text = crate::format::read(file, input)?;
    let (converted, findings) = convert_text(options.source_format, &text, &options.extra_args);
    if let Some(report) = &options.report {
        std::fs::write(report, listed(&findings))
            .with_context(|| format!("cannot write {}", report.display()))?;
    }
    refuse(&findings, options.bypass_errors)?;
    if options.report.is_none() {
        tell(&findings);
    }
    match &options.output {
        Some(file) => std::fs::write(file, converted)
            .with_context(|| format!("cannot write {}", file.display())),
        None => Ok(output.write_all(converted.as_bytes())?),
    }
}

/// The text of a configuration for this agent, and what was found on the way.
pub(crate) fn convert_text(format: Format, text: &str, extra_args: &str) -> (String, Vec<Finding>) {
    let name = match format {
        Format::Prometheus if extra_args.is_empty() => return prometheus(text),
        Format::Prometheus => {
            return critical("extra arguments are not supported for a Prometheus configuration");
        }
        Format::Promtail => "promtail",
        Format::Static => "static",
        Format::Otelcol => "otelcol",
    };
    critical(&format!(
        "a configuration of {name} cannot be converted; there is prometheus"
    ))
}

fn critical(message: &str) -> (String, Vec<Finding>) {
    let (level, message) = (Level::Critical, message.to_owned());
    (String::new(), vec![Finding { level, message }])
}

#[expect(clippy::print_stderr, reason = "stdout has the result")]
fn tell(findings: &[Finding]) {
    eprint!("{}", listed(findings));
}

/// One line each; the rest of a finding of several lines follows it.
pub(crate) fn listed(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect()
}

/// Fails where a finding does not let the result be used.
///
/// # Errors
/// All findings.
pub(crate) fn refuse(findings: &[Finding], bypass_errors: bool) -> anyhow::Result<()> {
    let ends = |finding: &Finding| finding.level == Level::Critical || !bypass_errors;
    if findings.iter().any(ends) {
        bail!(
            "the configuration cannot be converted:\n{}",
            listed(findings).trim_end()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "remote_write: [{url: 'http://h'}]\n";
    const ODD: &str = "rule_files: [x]\nremote_write: [{url: 'http://h'}]\n";

    fn call(format: Format, bypass_errors: bool, input: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report");
        let options = Options {
            file: None,
            source_format: format,
            output: None,
            report: Some(report.clone()),
            bypass_errors,
            extra_args: String::new(),
        };
        let mut output = Vec::new();
        let result = convert(&options, &mut input.as_bytes(), &mut output);
        let report = std::fs::read_to_string(report).unwrap();
        match result {
            Ok(()) => Ok(format!("{report}{}", String::from_utf8(output).unwrap())),
            Err(error) => {
                assert!(error.to_string().ends_with(report.trim_end()), "{error}");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn what_has_no_counterpart_ends_it_unless_it_is_bypassed() {
        let good = call(Format::Prometheus, false, GOOD).unwrap();
        assert!(
            good.starts_with("prometheus.remote_write \"default\" {"),
            "{good}"
        );
        let refused = call(Format::Prometheus, false, ODD).unwrap_err();
        assert!(
            refused.contains("(Error) The converter does not support"),
            "{refused}"
        );
        let bypassed = call(Format::Prometheus, true, ODD).unwrap();
        assert!(
            bypassed.starts_with("(Error)") && bypassed.ends_with(&good),
            "{bypassed}"
        );
    }

    #[test]
    fn nothing_goes_around_a_critical_finding() {
        for format in [Format::Promtail, Format::Static, Format::Otelcol] {
            let refused = call(format, true, GOOD).unwrap_err();
            assert!(
                refused.contains("(Critical) a configuration of "),
                "{refused}"
            );
        }
        assert!(call(Format::Prometheus, true, "a: 1\n").is_err());
        assert_eq!(
            convert_text(Format::Prometheus, GOOD, "-x").1[0].level,
            Level::Critical
        );
    }
}
