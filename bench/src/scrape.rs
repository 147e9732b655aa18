//! Turns targets that are scraped into what that takes: CPU, memory, and whether a scrape is missed.
//!
//! The targets are paths of one server in this process; each exposes as many series, with new values each
//! time. The subjects scrape on one core and deliver into a sink that answers at once.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wal::{SharedClock, SystemClock};

use crate::Common;
use crate::e2e::version_of;
use crate::measure::{LOAD_CORE, Used, float, pin_to};
use crate::sink::Sink;
use crate::subject::{Program, Scrapes, Subject};
use crate::table::{Table, mebibytes, millions, print, publish, times};

/// Series of a scrape that are not the target's: `up` and those beside it.
const REPORTED: usize = 5;
const SERIES_PER_FAMILY: usize = 25;
const LOOK: Duration = Duration::from_millis(100);
/// Intervals until every target was scraped twice.
const WARM_UP: u32 = 3;

/// The arguments of `scrape`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("series", |series| series.default_value("1000").help("How many series a target has")),
    mut_arg("seconds", |seconds| seconds.default_value("60")),
    mut_arg("connections", |connections| connections.hide(true))
)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// How many targets.
    #[arg(long, default_value_t = 1000)]
    targets: usize,
    /// Seconds between two scrapes of a target.
    #[arg(long, default_value_t = 15)]
    interval: u32,
    /// Only our agent.
    #[arg(long)]
    alone: bool,
}

/// What scraping took.
struct Took {
    seconds: f64,
    cpu_seconds: f64,
    used: Used,
    delivered: f64,
    due: f64,
}

/// Measures everything that is installed and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let ours = Program::penstock(options.agent.as_deref(), true)?;
    pin_to(LOAD_CORE)?;
    let clock = SystemClock::shared();
    let targets = Targets::start(common.series)?;
    let mut notes = vec![format!(
        "{} targets of {} series, scraped every {} s on one core, {} s measured after {WARM_UP} intervals; plain \
         text, a new value in every line; anonymous: what no file stands behind",
        options.targets, common.series, options.interval, common.seconds
    )];
    let mut results = Vec::new();
    let others = [Program::Vmagent, Program::Prometheus];
    let others = others.into_iter().filter(|_| !options.alone);
    for program in std::iter::once(ours).chain(others) {
        if program.version().is_none() {
            notes.push(format!("{}: not installed, skipped", program.name()));
            continue;
        }
        notes.push(version_of(&program));
        print(&format!("{} ...", program.name()));
        results.push((
            program.name(),
            measure(options, &program, &targets, &clock)?,
        ));
    }
    publish(
        "Scraping",
        &notes,
        &[table(options, &results)],
        common.out(),
    )
}

fn measure(
    options: &Options,
    program: &Program,
    targets: &Targets,
    clock: &SharedClock,
) -> Result<Took> {
    let common = &options.common;
    let sink = Sink::start()?;
    let scrapes = Scrapes {
        address: targets.address,
        targets: options.targets,
        interval: options.interval,
    };
    let dir = common.scratch()?;
    let mut subject = Subject::start_scraping(program, dir, sink.address, clock, &scrapes)?;
    wait(
        clock,
        &mut subject,
        Duration::from_secs(u64::from(WARM_UP * options.interval)),
    )?;
    let look = |subject: &Subject| -> Result<(Duration, Used, u64)> {
        let delivered = sink.counts.samples.load(Ordering::Relaxed);
        Ok((clock.monotonic(), subject.used()?, delivered))
    };
    let first = look(&subject)?;
    wait(clock, &mut subject, common.duration())?;
    let last = look(&subject)?;
    let seconds = (last.0 - first.0).as_secs_f64();
    let each = float((common.series + REPORTED) as u64) * float(options.targets as u64);
    Ok(Took {
        seconds,
        cpu_seconds: last.1.cpu_seconds - first.1.cpu_seconds,
        used: last.1,
        delivered: float(last.2 - first.2),
        due: each * seconds / f64::from(options.interval),
    })
}

fn wait(clock: &SharedClock, subject: &mut Subject, time: Duration) -> Result<()> {
    let until = clock.monotonic() + time;
    while clock.monotonic() < until {
        subject.check()?;
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn table(options: &Options, results: &[(&str, Took)]) -> Table {
    let mut table = Table::new([
        "subject",
        "CPU, of a core",
        "samples per CPU-second",
        "anonymous",
        "resident",
        "anonymous per series",
        "delivered, of due",
    ]);
    let series = float((options.common.series * options.targets) as u64);
    for (name, took) in results {
        table.row(vec![
            (*name).to_owned(),
            format!("{:.1} %", took.cpu_seconds / took.seconds * 100.0),
            millions(took.delivered / took.cpu_seconds),
            mebibytes(took.used.anonymous_bytes),
            mebibytes(took.used.resident_bytes),
            format!("{:.0} B", took.used.anonymous_bytes / series),
            times(took.delivered / took.due),
        ]);
    }
    table
}

/// A server whose every path is a target.
struct Targets {
    address: SocketAddr,
}

impl Targets {
    fn start(series: usize) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let body = Arc::new(Exposed::new(series));
        let serve = move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a runtime");
                while let Ok((stream, _)) = listener.accept().await {
                    let body = body.clone();
                    // Ends with its connection.
                    tokio::spawn(async move { drop(answer(stream, &body).await) });
                }
            });
        };
        std::thread::Builder::new()
            .name("targets".to_owned())
            .spawn(serve)?;
        Ok(Self { address })
    }
}

/// What a target exposes: the text before each value.
struct Exposed {
    before: Vec<String>,
    scrapes: AtomicU64,
}

impl Exposed {
    fn new(series: usize) -> Self {
        let line = |at: usize| {
            let family = at / SERIES_PER_FAMILY;
            let mut text = String::new();
            if at.is_multiple_of(SERIES_PER_FAMILY) {
                text = format!(
                    "# HELP bench_family_{family}_total What family {family} counts.\n\
                     # TYPE bench_family_{family}_total counter\n"
                );
            }
            _ = write!(
                text,
                "bench_family_{family}_total{{device=\"eth{}\",mode=\"idle\",zone=\"north\"}} ",
                at % SERIES_PER_FAMILY
            );
            text
        };
        Self {
            before: (0..series).map(line).collect(),
            scrapes: AtomicU64::new(0),
        }
    }

    fn body(&self) -> String {
        let scrape = self.scrapes.fetch_add(1, Ordering::Relaxed);
        let mut body = String::with_capacity(self.before.len() * 100);
        for (at, before) in (0_u64..).zip(&self.before) {
            body.push_str(before);
            _ = writeln!(body, "{}", at * 7919 + scrape);
        }
        body
    }
}

/// Answers every request on a connection.
async fn answer(mut stream: TcpStream, exposed: &Exposed) -> std::io::Result<()> {
    let mut asked = Vec::new();
    loop {
        while !asked.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut asked).await? == 0 {
                return Ok(());
            }
        }
        asked.clear();
        let body = exposed.body();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
}
