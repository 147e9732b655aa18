//! Turns the numbers of a demo into a table and a verdict.

use indicatif::{HumanBytes, HumanCount};

use super::agent::{Memory, Usage};
use super::backend::Received;
use super::load::Sent;

/// Everything that was counted.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// What the load did.
    pub(super) sent: Sent,
    /// What the backend got.
    pub(super) received: Received,
    /// Acknowledged and not delivered.
    pub(super) missing: u64,
    /// What the agent processes used.
    pub(super) usage: Usage,
    /// The agent's memory before it was stopped.
    pub(super) memory: Memory,
    /// How many series.
    pub(super) series: u32,
    /// Why the agent's end was not as it should be.
    pub(super) agent_fault: Option<String>,
}

impl Report {
    /// What is wrong, one line each; nothing if the demo went well.
    pub(super) fn faults(&self) -> Vec<String> {
        let counts = self.received.counts;
        let wrong = [
            (self.missing, "acknowledged samples are missing"),
            (counts.out_of_order, "samples arrived out of order"),
            (counts.altered, "samples arrived altered"),
            (self.received.malformed, "requests could not be read"),
        ];
        let mut faults: Vec<String> = wrong
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.sent.acked == 0 {
            faults.push("nothing was acknowledged, so nothing was shown".to_owned());
        }
        faults.extend(self.agent_fault.clone());
        faults
    }

    /// The table.
    pub(super) fn lines(&self) -> Vec<String> {
        let counts = self.received.counts;
        let count = |number: u64| HumanCount(number).to_string();
        let acked = float(self.sent.acked);
        let delivered = float(counts.delivered + counts.duplicates);
        let series = f64::from(self.series);
        let per_core_second = ratio(acked, Some(self.usage.cpu_seconds));
        let disk = self.usage.written_bytes.unwrap_or(f64::NAN);
        let rows = [
            ("samples sent", count(self.sent.samples)),
            (
                "sent again for want of an answer",
                count(self.sent.repeated),
            ),
            ("samples acknowledged (2xx)", count(self.sent.acked)),
            ("samples delivered", count(counts.delivered)),
            ("missing", must_be_zero(self.missing)),
            ("out of order", must_be_zero(counts.out_of_order)),
            ("altered", must_be_zero(counts.altered)),
            (
                "duplicates (at least once, so allowed)",
                count(counts.duplicates),
            ),
            (
                "samples per core-second of the agent",
                number(per_core_second, 0),
            ),
            (
                "bytes per sample on disk (small integers)",
                number(ratio(disk, self.usage.written_samples), 2),
            ),
            (
                "bytes per sample on the wire",
                number(ratio(float(self.received.body_bytes), Some(delivered)), 2),
            ),
            (
                "memory per series, anonymous",
                bytes(float(self.memory.anonymous_bytes) / series),
            ),
            (
                "memory per series, with mapped files",
                bytes(float(self.memory.resident_bytes) / series),
            ),
            (
                "memory in all, anonymous",
                HumanBytes(self.memory.anonymous_bytes).to_string(),
            ),
            (
                "memory in all, with mapped files",
                HumanBytes(self.memory.resident_bytes).to_string(),
            ),
        ];
        rows.iter()
            .map(|(name, value)| format!("  {name:<42} {value:>16}"))
            .collect()
    }
}

fn must_be_zero(count: u64) -> String {
    if count == 0 {
        "0".to_owned()
    } else {
        format!("{} (!)", HumanCount(count))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts far below 2^53, for ratios"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

/// NaN, which is shown as a dash, when it cannot be known.
fn ratio(dividend: f64, divisor: Option<f64>) -> f64 {
    match divisor {
        Some(divisor) if divisor > 0.0 => dividend / divisor,
        _ => f64::NAN,
    }
}

fn number(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    if decimals > 0 {
        return format!("{value:.decimals$}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to integer cast saturates, and this is only shown"
    )]
    let whole = value.round() as u64;
    HumanCount(whole).to_string()
}

fn bytes(value: f64) -> String {
    format!("{} B", number(value, 0))
}

#[cfg(test)]
mod tests {
    use super::super::check::Counts;
    use super::*;

    fn good() -> Report {
        Report {
            sent: Sent {
                samples: 100,
                repeated: 10,
                acked: 100,
            },
            received: Received {
                counts: Counts {
                    delivered: 100,
                    duplicates: 25,
                    ..Counts::default()
                },
                body_bytes: 2_500,
                malformed: 0,
            },
            missing: 0,
            usage: Usage {
                cpu_seconds: 0.5,
                written_bytes: Some(600.0),
                written_samples: Some(100.0),
            },
            memory: Memory {
                resident_bytes: 4_000,
                anonymous_bytes: 400,
            },
            series: 10,
            agent_fault: None,
        }
    }

    #[test]
    fn a_good_run_has_no_faults_and_duplicates_are_none() {
        assert_eq!(good().faults(), Vec::<String>::new());
        let lines = good().lines().join("\n");
        for (name, value) in [
            ("samples per core-second of the agent", "200"),
            ("bytes per sample on disk (small integers)", "6.00"),
            ("bytes per sample on the wire", "20.00"),
            ("memory per series, anonymous", "40 B"),
        ] {
            let line = lines.lines().find(|line| line.contains(name)).unwrap();
            assert!(line.ends_with(&format!(" {value}")), "{line}");
        }
    }

    #[test]
    fn each_fault_is_told() {
        let mut missing = good();
        missing.missing = 1;
        let mut late = good();
        late.received.counts.out_of_order = 1;
        let mut altered = good();
        altered.received.counts.altered = 1;
        let mut malformed = good();
        malformed.received.malformed = 1;
        let mut idle = good();
        idle.sent.acked = 0;
        let mut agent = good();
        agent.agent_fault = Some("the agent ended with 1".to_owned());
        for report in [missing, late, altered, malformed, idle, agent] {
            assert_eq!(report.faults().len(), 1, "{:?}", report.faults());
        }
    }

    #[test]
    fn what_the_agent_did_not_say_is_a_dash() {
        let mut silent = good();
        silent.usage = Usage::default();
        let lines = silent.lines();
        assert_eq!(lines.iter().filter(|line| line.ends_with(" -")).count(), 2);
    }
}
