//! Turns the state of the demo into bars on a terminal, or into plain lines anywhere else.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use super::agent::Lag;

/// How often a plain line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// Over how long rates are taken.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct State {
    /// Samples acknowledged by the agent.
    pub(super) acked: u64,
    /// Different samples at the backend.
    pub(super) delivered: u64,
    /// How far the agent says it is behind.
    pub(super) lag: Lag,
}

/// Counts at one moment, and the rates up to it.
#[derive(Clone, Copy, Default, Debug)]
struct Rates {
    at: Duration,
    acked: u64,
    delivered: u64,
    acked_per_second: u64,
    delivered_per_second: u64,
}

#[derive(Debug)]
enum Display {
    Bars {
        all: MultiProgress,
        phase: ProgressBar,
        acked: ProgressBar,
        delivered: ProgressBar,
        backlog: ProgressBar,
    },
    Lines {
        last: Option<Duration>,
    },
}

/// Shows how the demo goes.
#[derive(Debug)]
pub(super) struct Progress {
    display: Display,
    phase: String,
    rates: Rates,
}

impl Progress {
    /// `expected` is how many samples there will be about.
    pub(super) fn start(expected: u64) -> Result<Self> {
        let display = if std::io::stderr().is_terminal() {
            bars(expected)?
        } else {
            Display::Lines { last: None }
        };
        Ok(Self {
            display,
            phase: String::new(),
            rates: Rates::default(),
        })
    }

    /// Tells what happens from now on.
    pub(super) fn phase(&mut self, at: Duration, text: &str) -> Result<()> {
        text.clone_into(&mut self.phase);
        let line = format!("{:5.1} s  {text}", at.as_secs_f64());
        match &self.display {
            Display::Bars { all, phase, .. } => {
                phase.set_message(text.to_owned());
                all.println(line)?;
            }
            Display::Lines { .. } => print_line(&line),
        }
        Ok(())
    }

    /// Shows the counts.
    pub(super) fn show(&mut self, at: Duration, state: State) {
        self.rates.take(at, state);
        let rates = self.rates;
        let backlog = backlog_text(state);
        match &mut self.display {
            Display::Bars {
                acked,
                delivered,
                backlog: backlog_bar,
                ..
            } => {
                for (bar, count, rate) in [
                    (&*acked, state.acked, rates.acked_per_second),
                    (&*delivered, state.delivered, rates.delivered_per_second),
                ] {
                    // Load that fell behind and caught up may send a little more than was expected.
                    bar.set_length(bar.length().unwrap_or(0).max(state.acked));
                    bar.set_position(count);
                    bar.set_message(format!("{}/s", HumanCount(rate)));
                }
                backlog_bar.set_message(backlog);
            }
            Display::Lines { last } => {
                if last.is_some_and(|last| at < last + LINE_INTERVAL) {
                    return;
                }
                *last = Some(at);
                print_line(&format!(
                    "{:5.1} s  {}: acked {} ({}/s), delivered {} ({}/s), {backlog}",
                    at.as_secs_f64(),
                    self.phase,
                    HumanCount(state.acked),
                    HumanCount(rates.acked_per_second),
                    HumanCount(state.delivered),
                    HumanCount(rates.delivered_per_second),
                ));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bars {
            phase,
            acked,
            delivered,
            backlog,
            ..
        } = &self.display
        {
            for bar in [phase, acked, delivered, backlog] {
                bar.finish_and_clear();
            }
        }
    }
}

impl Rates {
    fn take(&mut self, at: Duration, state: State) {
        let passed = at.saturating_sub(self.at);
        if passed < RATE_INTERVAL {
            return;
        }
        let per_second = |count: u64, before: u64| {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            count.saturating_sub(before).saturating_mul(1000) / millis.max(1)
        };
        *self = Self {
            at,
            acked: state.acked,
            delivered: state.delivered,
            acked_per_second: per_second(state.acked, self.acked),
            delivered_per_second: per_second(state.delivered, self.delivered),
        };
    }
}

fn backlog_text(state: State) -> String {
    let samples = state.acked.saturating_sub(state.delivered);
    let mut text = format!("backlog {} samples", HumanCount(samples));
    if let Some(bytes) = state.lag.bytes {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float to integer cast saturates, and this is only shown"
        )]
        let bytes = HumanBytes(bytes as u64);
        text.push_str(&format!(", {bytes} of log"));
    }
    if let Some(seconds) = state.lag.seconds {
        text.push_str(&format!(", {seconds:.1} s behind"));
    }
    text
}

fn bars(expected: u64) -> Result<Display> {
    let all = MultiProgress::new();
    let spinner = |template: &str| -> Result<ProgressBar> {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(template)?);
        Ok(all.add(bar))
    };
    let counter = |name: &'static str| -> Result<ProgressBar> {
        let template = "  {prefix:10} [{bar:40}] {human_pos:>12}  {msg}";
        let style = ProgressStyle::with_template(template)?.progress_chars("=> ");
        let bar = ProgressBar::new(expected)
            .with_style(style)
            .with_prefix(name);
        Ok(all.add(bar))
    };
    let phase = spinner("{spinner} {msg}")?;
    let acked = counter("acked")?;
    let delivered = counter("delivered")?;
    let backlog = spinner("  {msg}")?;
    phase.enable_steady_tick(Duration::from_millis(120));
    Ok(Display::Bars {
        all,
        phase,
        acked,
        delivered,
        backlog,
    })
}

/// Writes a line for whoever runs the demo.
#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
pub(super) fn print_line(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_taken_over_a_second_at_least() {
        let mut rates = Rates::default();
        let state = |acked| State {
            acked,
            delivered: acked / 2,
            ..State::default()
        };
        rates.take(Duration::from_millis(900), state(500));
        assert_eq!(rates.acked_per_second, 0);
        rates.take(Duration::from_millis(2_000), state(1_000));
        assert_eq!(
            (rates.acked_per_second, rates.delivered_per_second),
            (500, 250)
        );
        rates.take(Duration::from_millis(2_100), state(9_000));
        assert_eq!(rates.acked_per_second, 500);
    }

    #[test]
    fn the_backlog_is_shown_with_what_the_agent_says() {
        let mut state = State {
            acked: 1_500,
            delivered: 400,
            lag: Lag::default(),
        };
        assert_eq!(backlog_text(state), "backlog 1,100 samples");
        state.lag = Lag {
            bytes: Some(2048.0),
            seconds: Some(1.25),
        };
        assert_eq!(
            backlog_text(state),
            "backlog 1,100 samples, 2.00 KiB of log, 1.2 s behind"
        );
    }
}
