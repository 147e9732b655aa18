//! Turns bodies, one after the other, into what is in the log then.

mod openmetrics;
mod starts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use labels::relabel::{Action, RuleOptions};
use prost::Message;
use wal::{RecordKind, Store, StoreOptions};

use super::line::{ScrapeLine, Scraped};
use super::options::Rules;
use super::scrape::STALE_BITS;
use super::target::{Defaults, Labels, Target};
use crate::decode::exposition::Format;
use crate::decode::labels::{LabelLimits, labels_of};
use crate::options::Path;
use crate::paths::Stage;
use crate::proto::Histogram;

const STALE: &str = "stale";

struct Bench {
    line: ScrapeLine,
    store: Store,
    tail: wal::Tail,
    time_ms: i64,
    _dir: tempfile::TempDir,
}

fn target() -> Target {
    let labels: Labels = [("__address__", "h:1"), ("job", "j")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let defaults = Defaults {
        job: String::new(),
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        metrics_path: "/metrics".to_owned(),
        scheme: "http".to_owned(),
        params: BTreeMap::new(),
    };
    Target::prepare(&labels, &defaults).unwrap()
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self::through(rules, Vec::new())
    }

    fn through(rules: Rules, stages: Vec<Arc<Stage>>) -> Self {
        let bench = Self::not_written(rules, stages);
        bench.write();
        bench
    }

    /// Nothing of its log is written, so that its ring fills up.
    fn not_written(rules: Rules, stages: Vec<Arc<Stage>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            segment_bytes: 1 << 20,
            ring_bytes: 1 << 20,
            series_chunk_bytes: 1 << 20,
            ..StoreOptions::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let tail = store.endpoint("reader").unwrap().tail();
        let path = Path { store: 0, stages };
        let line = ScrapeLine::new(std::slice::from_ref(&store), &[path], target(), rules);
        Self {
            line: line.unwrap(),
            store,
            tail,
            time_ms: 1000,
            _dir: dir,
        }
    }

    fn write(&self) {
        let committer = self.store.committer().unwrap();
        committer.spawn_thread().unwrap();
    }

    fn try_scrape(&mut self, body: &str) -> Result<Scraped, String> {
        self.time_ms += 15_000;
        let body = (body.as_bytes(), Format::Text);
        self.line.scrape(Ok(body), self.time_ms)
    }

    /// A scrape 15 s after the last one.
    fn scrape(&mut self, body: &str) -> Scraped {
        self.scrape_as(body.as_bytes(), Format::Text)
    }

    fn scrape_as(&mut self, body: &[u8], format: Format) -> Scraped {
        self.time_ms += 15_000;
        self.line.scrape(Ok((body, format)), self.time_ms).unwrap()
    }

    fn fail(&mut self) -> Scraped {
        self.time_ms += 15_000;
        self.line
            .scrape(Err("no route".to_owned()), self.time_ms)
            .unwrap()
    }

    /// What came into the log since the last call: `name{labels} value`, with `@time` where that is not the
    /// scrape's. Without what tells how scrapes went.
    fn came(&mut self) -> Vec<String> {
        let all = self.all();
        all.into_iter().filter(|line| !is_report(line)).collect()
    }

    fn reports(&mut self) -> BTreeMap<String, String> {
        let all = self.all().into_iter().filter(|line| is_report(line));
        all.map(|line| {
            let (name, _) = line.split_once('{').unwrap();
            (name.to_owned(), line.rsplit(' ').next().unwrap().to_owned())
        })
        .collect()
    }

    fn all(&mut self) -> Vec<String> {
        self.everything().0
    }

    /// Samples, and native histograms by their series.
    fn everything(&mut self) -> (Vec<String>, Vec<(String, Histogram)>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut durable = self.store.durable();
        let positions = self.line.positions().iter();
        let last = positions.max().copied().unwrap_or_default();
        runtime.block_on(durable.reached(last)).unwrap();
        let (mut lines, mut histograms, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(frame) = self.tail.next().unwrap() {
            samples.clear();
            let guard = self.store.series().guard();
            for record in frame.samples(&mut samples).unwrap() {
                let record = record.unwrap();
                if record.kind == RecordKind::Histogram {
                    let histogram = Histogram::decode(record.bytes).unwrap();
                    histograms.push((shown(guard.labels(record.series)), histogram));
                }
            }
            for sample in &samples {
                let value = match sample.value_bits {
                    STALE_BITS => STALE.to_owned(),
                    bits => f64::from_bits(bits).to_string(),
                };
                let time = match sample.timestamp_ms {
                    time if time == self.time_ms => String::new(),
                    time => format!("@{time}"),
                };
                let series = shown(guard.labels(sample.series));
                lines.push(format!("{series} {value}{time}"));
            }
        }
        (lines, histograms)
    }
}

/// `name{labels}` without those of the target.
fn shown(canonical: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut name, mut others) = (String::new(), Vec::new());
    for (label, value) in labels_of(canonical) {
        match (label, value) {
            (b"__name__", value) => name = text(value),
            (b"job", b"j") | (b"instance", b"h:1") => {}
            (label, value) => others.push(format!("{}={}", text(label), text(value))),
        }
    }
    format!("{name}{{{}}}", others.join(","))
}

fn is_report(line: &str) -> bool {
    line.starts_with("up{") || line.starts_with("scrape_")
}

fn taken(followed: usize, parsed: usize) -> Scraped {
    Scraped {
        followed,
        parsed,
        ..Scraped::default()
    }
}

const BODY: &str = "# HELP a things\n# TYPE a gauge\na 1\na{x=\"1\"} 2\n# TYPE b counter\nb 3\n";

#[test]
fn a_body_that_comes_again_with_other_values_is_not_parsed() {
    let mut bench = Bench::new(Rules::default());
    assert_eq!(bench.scrape(BODY), taken(0, 3));
    assert_eq!(bench.came(), ["a{} 1", "a{x=1} 2", "b{} 3"]);
    assert_eq!(
        bench.scrape(&BODY.replace(" 2\n", " -1.5e3\n")),
        taken(3, 0)
    );
    assert_eq!(bench.came(), ["a{} 1", "a{x=1} -1500", "b{} 3"]);
    let nan = BODY.replace(" 3\n", " NaN\n");
    assert_eq!(bench.scrape(&nan), taken(3, 0));
    assert_eq!(bench.came()[2], "b{} NaN");
}

#[test]
fn what_is_new_is_parsed_and_the_rest_goes_on_as_before() {
    let mut bench = Bench::new(Rules::default());
    let lines: String = (0..100).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    assert_eq!(bench.scrape(&lines), taken(0, 100));
    bench.came();
    let more = lines.replace("m{n=\"50\"} 50\n", "m{n=\"50\"} 50\nnew 1\n");
    let scraped = bench.scrape(&more);
    // The line behind the new one has another text before its value.
    assert_eq!(scraped, taken(99, 2));
    let came = bench.came();
    assert_eq!(came.len(), 101);
    assert_eq!(came[51], "new{} 1");
    assert_eq!(bench.scrape(&more), taken(101, 0));
    bench.came();
    // And without it again.
    assert_eq!(
        bench.scrape(&lines),
        Scraped {
            stale: 1,
            ..taken(99, 1)
        }
    );
    let came = bench.came();
    assert_eq!(came.len(), 101);
    assert_eq!(came[100], "new{} stale");
    assert_eq!(bench.scrape(&lines), taken(100, 0));
}

#[test]
fn what_is_not_there_any_more_is_stale_once() {
    let mut bench = Bench::new(Rules::default());
    bench.scrape(BODY);
    bench.came();
    let scraped = bench.scrape("a 1\n");
    assert_eq!((scraped.stale, scraped.error), (2, None));
    assert_eq!(bench.came(), ["a{} 1", "a{x=1} stale", "b{} stale"]);
    bench.scrape("a 1\n");
    assert_eq!(bench.came(), ["a{} 1"]);
}

#[test]
fn a_scrape_that_fails_makes_everything_stale_once_and_says_so() {
    let mut bench = Bench::new(Rules::default());
    bench.scrape(BODY);
    assert_eq!(bench.reports()["up"], "1");
    let failed = bench.fail();
    assert_eq!(
        (failed.stale, failed.error.as_deref()),
        (3, Some("no route"))
    );
    assert_eq!(bench.came(), ["a{} stale", "a{x=1} stale", "b{} stale"]);
    assert_eq!(bench.fail().stale, 0);
    let reports = bench.reports();
    assert_eq!(
        (&*reports["up"], &*reports["scrape_samples_scraped"]),
        ("0", "0")
    );
    // What was known of the body is of use again.
    assert_eq!(bench.scrape(BODY), taken(3, 0));
    assert_eq!(bench.came(), ["a{} 1", "a{x=1} 2", "b{} 3"]);
    assert_eq!(bench.fail().stale, 3);
}

#[test]
fn a_body_that_is_wrong_at_its_end_leaves_no_sample() {
    for body in [
        "a 1\na{x=\"1\"} 2\n# TYPE b counter\nb three\n",
        "a 1\na{x=\"1\" 2\n",
    ] {
        let mut bench = Bench::new(Rules::default());
        bench.scrape(BODY);
        bench.came();
        let scraped = bench.scrape(body);
        assert!(scraped.error.unwrap().contains("line"));
        assert_eq!(bench.came(), ["a{} stale", "a{x=1} stale", "b{} stale"]);
        assert_eq!(bench.scrape(BODY).error, None);
        assert_eq!(bench.came(), ["a{} 1", "a{x=1} 2", "b{} 3"]);
    }
}

#[test]
fn samples_with_times_of_their_own_are_followed_and_not_stale() {
    let mut bench = Bench::new(Rules::default());
    assert_eq!(bench.scrape("a 1 5000\nb 2 6\n"), taken(0, 2));
    assert_eq!(bench.came(), ["a{} 1@5000", "b{} 2@6"]);
    assert_eq!(bench.scrape("a 1 5001\nb 2 7\n"), taken(2, 0));
    assert_eq!(bench.came(), ["a{} 1@5001", "b{} 2@7"]);
    assert_eq!(bench.scrape("a 1 5002\n").stale, 0);
    bench.came();
    // A time where there was none, and none where there was one.
    assert_eq!(bench.scrape("a 1\n").error, None);
    assert_eq!(bench.came(), ["a{} 1"]);
    assert_eq!(bench.scrape("a 1 9\n").error, None);
    assert_eq!(bench.came(), ["a{} 1@9"]);

    let mut bench = Bench::new(Rules {
        track_timestamps_staleness: true,
        ..Rules::default()
    });
    bench.scrape("a 1 5000\nb 2 6\n");
    bench.came();
    assert_eq!(bench.scrape("a 1 5001\n").stale, 1);

    let mut bench = Bench::new(Rules {
        honor_timestamps: false,
        ..Rules::default()
    });
    bench.scrape("a 1 5000\nb 2 6\n");
    assert_eq!(bench.came(), ["a{} 1", "b{} 2"]);
    assert_eq!(bench.scrape("a 1 5001\nb 2 6\n"), taken(2, 0));
    assert_eq!(bench.came(), ["a{} 1", "b{} 2"]);
    assert_eq!(bench.scrape("a 1 5001\n").stale, 1);
}

#[test]
fn of_two_samples_of_a_series_the_first_is_taken() {
    let mut bench = Bench::new(Rules::default());
    let body = "a 1\na 2\nb 3\n";
    for round in 0..3 {
        let scraped = bench.scrape(body);
        assert_eq!((scraped.duplicates, scraped.error), (1, None), "{round}");
        let all = bench.all();
        assert_eq!(all[..2], ["a{} 1", "b{} 3"]);
        assert_eq!(all[4], "scrape_samples_scraped{} 3");
    }
    assert_eq!(bench.scrape("b 3\n").stale, 1);
    // With times of their own they are two samples.
    assert_eq!(bench.scrape("a 1 1\na 2 2\n").duplicates, 0);
    assert_eq!(bench.came().len(), 2 + 3);
}

#[test]
fn limits_fail_the_scrape_and_are_told_apart() {
    let labels = LabelLimits {
        labels_max: 4,
        ..LabelLimits::default()
    };
    for (rules, bad, why) in [
        (
            Rules {
                sample_limit: 3,
                ..Rules::default()
            },
            "a 1\nb 2\nc 3\nd 4\n",
            "sample limit",
        ),
        (
            Rules {
                labels,
                ..Rules::default()
            },
            "a{x=\"1\",y=\"2\"} 1\n",
            "label_limit",
        ),
        (Rules::default(), "{\"a.b\"} 1\n", "invalid metric name"),
        (
            Rules::default(),
            "a{\"x.y\"=\"z\"} 1\n",
            "invalid label name",
        ),
    ] {
        let mut bench = Bench::new(rules);
        assert_eq!(bench.scrape(BODY).error, None, "{why}");
        bench.came();
        let error = bench.scrape(bad).error.unwrap();
        assert!(error.contains(why), "{error}");
        assert_eq!(bench.came(), ["a{} stale", "a{x=1} stale", "b{} stale"]);
    }
    let mut bench = Bench::new(Rules {
        utf8_names: true,
        ..Rules::default()
    });
    assert_eq!(bench.scrape("{\"a.b\",\"x.y\"=\"z\"} 1\n").error, None);
    assert_eq!(bench.came(), ["a.b{x.y=z} 1"]);
}

#[test]
fn the_end_of_a_target_is_told_for_all_its_series() {
    let mut bench = Bench::new(Rules::default());
    bench.scrape(BODY);
    bench.all();
    bench.time_ms += 1;
    let ended = bench.line.end(bench.time_ms).unwrap();
    assert_eq!(ended.stale, 3 + 5);
    let all = bench.all();
    assert_eq!(all.len(), 8);
    assert!(all.iter().all(|line| line.ends_with(" stale")), "{all:?}");
}

#[test]
fn an_exemplar_is_taken_once() {
    let mut bench = Bench::new(Rules::default());
    let body = |exemplar: &str, value: u32| {
        format!(
            "# TYPE a counter\na_total {value} # {{t=\"{exemplar}\"}} 1\n# TYPE b gauge\nb 2\n# EOF\n"
        )
    };
    let exemplars = |text: String, bench: &mut Bench| {
        let before = bench
            .store
            .stats()
            .exemplars
            .load(std::sync::atomic::Ordering::Relaxed);
        let scraped = bench.scrape_as(text.as_bytes(), Format::OpenMetrics);
        assert_eq!(scraped.error, None);
        let after = bench
            .store
            .stats()
            .exemplars
            .load(std::sync::atomic::Ordering::Relaxed);
        (after - before, scraped.followed, scraped.parsed)
    };
    assert_eq!(exemplars(body("x", 1), &mut bench), (1, 0, 2));
    assert_eq!(exemplars(body("x", 2), &mut bench), (0, 1, 1));
    assert_eq!(exemplars(body("y", 3), &mut bench), (1, 1, 1));
    assert_eq!(bench.came().last().unwrap(), "b{} 2");
    let plain = body("y", 4).replace(" # {t=\"y\"} 1", "");
    assert_eq!(exemplars(plain.clone(), &mut bench), (0, 1, 1));
    assert_eq!(exemplars(plain, &mut bench), (0, 2, 0));
    // One that comes where there was none.
    assert_eq!(exemplars(body("z", 5), &mut bench).0, 1);
}

#[test]
fn behind_rules_it_is_the_same() {
    let rule = RuleOptions {
        action: Action::Drop,
        source_labels: vec!["__name__".to_owned()],
        regex: "b".to_owned(),
        ..RuleOptions::default()
    };
    let rules = vec![rule.build().unwrap()];
    let stage = Arc::new(Stage::new("s", rules, 1000, Duration::ZERO));
    let mut bench = Bench::through(Rules::default(), vec![stage]);
    assert_eq!(bench.scrape(BODY), taken(0, 3));
    assert_eq!(bench.came(), ["a{} 1", "a{x=1} 2"]);
    assert_eq!(bench.scrape(BODY), taken(3, 0));
    assert_eq!(bench.came(), ["a{} 1", "a{x=1} 2"]);
    assert_eq!(bench.scrape("a 7\n").stale, 2);
    assert_eq!(bench.came(), ["a{} 7", "a{x=1} stale"]);
}

#[test]
fn a_number_that_stands_for_nothing_any_more_is_not_used() {
    // Of ten label sets two are kept from scrape to scrape: the numbers of the others are free, or of others.
    let rule = RuleOptions {
        action: Action::LabelDrop,
        regex: "nothing".to_owned(),
        ..RuleOptions::default()
    };
    let rules = vec![rule.build().unwrap()];
    let stage = Arc::new(Stage::new("s", rules, 2, Duration::ZERO));
    let mut bench = Bench::through(Rules::default(), vec![stage]);
    let body: String = (0..10).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    let want: Vec<String> = (0..10).map(|n| format!("m{{n={n}}} {n}")).collect();
    for round in 0..5 {
        assert_eq!(bench.scrape(&body).error, None);
        assert_eq!(bench.came(), want, "{round}");
    }
}

#[test]
fn every_line_may_change_and_the_log_holds_what_a_parse_of_each_body_finds() {
    // Against a bench that never saw a body before: what it takes is parsed.
    let mut random = fastrand::Rng::with_seed(7);
    let mut bench = Bench::new(Rules::default());
    let mut lines: Vec<String> = (0..40).map(|n| format!("m{{n=\"{n}\"}}")).collect();
    for round in 0..40 {
        for _ in 0..random.usize(..3) {
            match random.usize(..4) {
                0 => lines.insert(random.usize(..=lines.len()), format!("n{{n=\"{round}\"}}")),
                1 if !lines.is_empty() => drop(lines.remove(random.usize(..lines.len()))),
                2 if lines.len() > 1 => {
                    let (a, b) = (random.usize(..lines.len()), random.usize(..lines.len()));
                    lines.swap(a, b);
                }
                _ => lines.insert(0, format!("# round {round}")),
            }
        }
        let with_value = |line: &String| match line.starts_with('#') {
            true => format!("{line}\n"),
            false => format!("{line} {}\n", line.len() + round),
        };
        let body: String = lines.iter().map(with_value).collect();
        assert_eq!(bench.scrape(&body).error, None);
        let mut came = bench.came();
        came.retain(|line| !line.ends_with(STALE));
        let mut fresh = Bench::new(Rules::default());
        fresh.scrape(&body);
        let want = fresh.came();
        assert_eq!(came, want, "round {round}:\n{body}");
    }
}

#[test]
fn what_the_log_did_not_take_is_new_or_stale_at_the_next_scrape() {
    let mut bench = Bench::not_written(Rules::default(), Vec::new());
    bench.scrape(BODY);
    while bench.try_scrape(BODY).is_ok() {}
    let error = bench.try_scrape("a 1\n").unwrap_err();
    assert!(error.contains("the log is full"), "{error}");
    bench.write();
    // Its end was not taken before, and there is no other way to tell it.
    let scraped = loop {
        if let Ok(scraped) = bench.try_scrape("a 1\nc 1\n") {
            break scraped;
        }
        std::thread::yield_now();
    };
    assert_eq!(scraped.stale, 2);
    let came = bench.came();
    let last: Vec<&str> = came.iter().rev().take(4).map(String::as_str).collect();
    assert_eq!(last, ["b{} stale", "a{x=1} stale", "c{} 1", "a{} 1"]);
}

#[test]
fn classic_histograms_become_native_ones_where_that_is_asked_for() {
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\na 1\n";
    let histograms = |bench: &Bench| {
        let stats = bench.store.stats();
        stats.histograms.load(std::sync::atomic::Ordering::Relaxed)
    };
    for (classic_histograms, want) in [
        (false, &["a{} 1"][..]),
        (
            true,
            &[
                "h_bucket{le=1.0} 2",
                "h_bucket{le=+Inf} 3",
                "h_sum{} 4",
                "h_count{} 3",
                "a{} 1",
            ],
        ),
    ] {
        let mut bench = Bench::new(Rules {
            convert_to_nhcb: true,
            classic_histograms,
            ..Rules::default()
        });
        assert_eq!(bench.scrape(body).error, None);
        assert_eq!(bench.came(), want);
        assert_eq!(histograms(&bench), 1);
        // Its stale marker is a sample, as Prometheus sends it.
        let stale = bench.scrape("a 1\n").stale;
        assert_eq!(stale, want.len());
        let came = bench.came();
        assert!(came.contains(&"h{} stale".to_owned()), "{came:?}");
    }
    let mut bench = Bench::new(Rules {
        convert_to_nhcb: true,
        native_bucket_limit: 1,
        ..Rules::default()
    });
    let error = bench.scrape(body).error.unwrap();
    assert!(error.contains("more than 1 buckets"), "{error}");
}
