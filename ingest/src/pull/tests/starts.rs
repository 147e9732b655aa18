//! Turns bodies that say since when their metrics count into what is in the log then.

use std::time::Duration;

use super::{BODY, Bench, Rules, Scraped};
use crate::decode::exposition::Format;
use crate::decode::exposition::tests::{bytes_of, corpus, listed};
use crate::proto::Histogram;
use crate::pull::scrape::Memory;

mod protobuf;

fn zeros() -> Rules {
    Rules {
        zero_at_start: true,
        ..Rules::default()
    }
}

/// Seconds as OpenMetrics writes them.
fn seconds(time_ms: i64) -> String {
    format!("{}.{:03}", time_ms / 1000, time_ms % 1000)
}

/// A counter with this value that began to count then.
fn counter(value: u32, start_ms: i64) -> String {
    let start = seconds(start_ms);
    format!("# TYPE a counter\na_total {value}\na_created {start}\n# EOF\n")
}

impl Bench {
    fn openmetrics(&mut self, body: &str) -> Scraped {
        let scraped = self.scrape_as(body.as_bytes(), Format::OpenMetrics);
        assert_eq!(scraped.error, None);
        scraped
    }

    /// A scrape of a counter; what of it came into the log.
    fn counted(&mut self, value: u32, start_ms: i64) -> Vec<String> {
        self.openmetrics(&counter(value, start_ms));
        self.came()
    }
}

#[test]
fn a_counter_that_begins_anew_is_0_at_its_start_once() {
    let mut bench = Bench::new(zeros());
    // When it was scraped first is 16000, an interval before that 1000.
    assert_eq!(bench.counted(5, 1000), ["a_total{} 5"]);
    assert_eq!(bench.counted(6, 1000), ["a_total{} 6"]);
    assert_eq!(
        bench.counted(1, 40_500),
        ["a_total{} 0@40500", "a_total{} 1"]
    );
    assert_eq!(bench.counted(2, 40_500), ["a_total{} 2"]);
    // What nobody told stays untold: something of then is in the log.
    assert_eq!(bench.counted(3, 61_000), ["a_total{} 3"]);
}

#[test]
fn nothing_else_of_a_scrape_counts_them_and_created_is_no_series() {
    let mut bench = Bench::new(Rules {
        sample_limit: 1,
        ..zeros()
    });
    let scraped = bench.openmetrics(&counter(5, 15_000));
    assert_eq!((scraped.parsed, scraped.starts), (1, 1));
    let reports = bench.reports();
    assert_eq!(reports["scrape_samples_scraped"], "1");
    assert_eq!(reports["scrape_series_added"], "1");
    assert_eq!(reports["up"], "1");
    // Without it they are what they were, and followed.
    let mut bench = Bench::new(Rules::default());
    assert_eq!(bench.counted(5, 15_000), ["a_total{} 5", "a_created{} 15"]);
    assert_eq!(bench.openmetrics(&counter(6, 15_000)).followed, 2);
}

#[test]
fn a_first_scrape_tells_starts_of_its_interval_only() {
    for (start_ms, is_told) in [(1000, false), (1500, true), (15_999, true), (16_000, false)] {
        let mut bench = Bench::new(zeros());
        let told = bench.counted(5, start_ms).len() == 2;
        assert_eq!(told, is_told, "{start_ms}");
    }
    // It came up while it was asked in vain.
    let mut bench = Bench::new(zeros());
    bench.fail();
    bench.fail();
    bench.all();
    assert_eq!(bench.counted(5, 17_000)[0], "a_total{} 0@17000");
}

#[test]
fn a_start_before_the_stale_marker_is_not_told() {
    let mut bench = Bench::new(zeros());
    bench.counted(5, 1000);
    bench.fail();
    assert_eq!(bench.came(), ["a_total{} stale"]);
    // The marker has 31000; the second failure writes none.
    bench.fail();
    bench.all();
    assert_eq!(bench.counted(1, 30_500), ["a_total{} 1"]);
    bench.fail();
    bench.fail();
    bench.all();
    assert_eq!(
        bench.counted(1, 80_000),
        ["a_total{} 0@80000", "a_total{} 1"]
    );
}

#[test]
fn a_start_too_long_ago_for_backends_is_not_told() {
    let minute = 60_000;
    for (ago_ms, is_told) in [(29 * minute, true), (31 * minute, false)] {
        let mut bench = Bench::new(zeros());
        bench.counted(5, 1000);
        bench.time_ms += 40 * minute;
        let start_ms = bench.time_ms + 15_000 - ago_ms;
        let told = bench.counted(1, start_ms).len() == 2;
        assert_eq!(told, is_told, "{ago_ms}");
    }
}

#[test]
fn a_start_by_a_clock_that_is_ahead_never_comes_behind_its_samples() {
    let mut bench = Bench::new(zeros());
    for value in 1..5 {
        let want = format!("a_total{{}} {value}");
        assert_eq!(bench.counted(value, 20_000), [want]);
    }
}

#[test]
fn every_series_that_counts_is_told_and_nothing_else() {
    let mut bench = Bench::new(zeros());
    bench.openmetrics("# EOF\n");
    bench.all();
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_count 3\nh_sum 4\nh_created 20\n\
                # TYPE s summary\ns{quantile=\"0.5\"} 7\ns_count 3\ns_sum 4\ns_created 21\n\
                # TYPE c counter\nc_total{x=\"1\"} 1\nc_created{x=\"1\"} 22\nc_total{x=\"2\"} 1\n\
                # TYPE g gauge\ng 1\ng_created 23\n# EOF\n";
    bench.openmetrics(body);
    let came = bench.came();
    let told: Vec<&str> = came.iter().map(String::as_str).take(6).collect();
    assert_eq!(
        told,
        [
            "h_bucket{le=1.0} 0@20000",
            "h_bucket{le=+Inf} 0@20000",
            "h_count{} 0@20000",
            "h_sum{} 0@20000",
            "s_count{} 0@21000",
            "s_sum{} 0@21000",
        ]
    );
    assert_eq!(came[6], "c_total{x=1} 0@22000");
    assert_eq!(came[7], "h_bucket{le=1.0} 2");
    // A gauge has no start: what looks like one is a series.
    assert!(came.contains(&"g_created{} 23".to_owned()), "{came:?}");
    assert_eq!(came.len(), 7 + 11);
}

#[test]
fn samples_with_times_of_their_own_come_behind_their_start() {
    let body = |time: &str| {
        format!("# TYPE a counter\na_total 1 {time}\na_total 2 30.5\na_created 25\n# EOF\n")
    };
    for (honor_timestamps, time, want) in [
        (
            true,
            "30",
            &[
                "a_total{} 0@25000",
                "a_total{} 1@30000",
                "a_total{} 2@30500",
            ][..],
        ),
        // It cannot have begun after one of its samples.
        (true, "24", &["a_total{} 1@24000", "a_total{} 2@30500"]),
        (false, "24", &["a_total{} 0@25000", "a_total{} 1"]),
    ] {
        let mut bench = Bench::new(Rules {
            honor_timestamps,
            ..zeros()
        });
        bench.openmetrics("# EOF\n");
        bench.all();
        bench.openmetrics(&body(time));
        assert_eq!(bench.came(), want, "{time}");
    }
}

#[test]
fn it_is_switched_by_a_reload() {
    let mut bench = Bench::new(Rules::default());
    assert_eq!(bench.counted(5, 1000).len(), 2);
    bench.line.change(zeros());
    // `_created` was a series, and is none any more.
    assert_eq!(
        bench.counted(1, 20_000),
        ["a_total{} 0@20000", "a_total{} 1", "a_created{} stale"]
    );
    bench.line.change(Rules::default());
    assert_eq!(bench.counted(1, 40_000), ["a_total{} 1", "a_created{} 40"]);
}

#[test]
fn what_the_log_did_not_take_is_not_the_last_time() {
    let mut bench = Bench::not_written(zeros(), Vec::new());
    while bench.try_scrape(BODY).is_ok() {}
    // Between the last scrape that was taken and the one that was not.
    let start_ms = bench.time_ms - 1;
    bench.time_ms += 15_000;
    bench.write();
    let body = counter(1, start_ms);
    let scraped = loop {
        let body = (body.as_bytes(), Format::OpenMetrics);
        if let Ok(scraped) = bench.line.scrape(Ok(body), bench.time_ms) {
            break scraped;
        }
        std::thread::yield_now();
    };
    assert_eq!(scraped.starts, 1);
}

#[test]
fn what_was_written_stays_known_on_other_ways() {
    let mut memory = Memory::default();
    memory.go(1);
    memory.since.wrote(50_000);
    memory.go(2);
    let interval = Duration::from_secs(15);
    assert_eq!(memory.since.begin(60_000, interval), 50_000);
}

/// What matters of a histogram here: its time, its schema, its count, its hint.
fn brief((series, histogram): &(String, Histogram)) -> (String, i64, i32, bool, i32) {
    use crate::proto::Count;
    let is_empty = matches!(histogram.count, Some(Count::Int(0)));
    (
        series.clone(),
        histogram.timestamp,
        histogram.schema,
        is_empty,
        histogram.reset_hint,
    )
}

#[test]
fn a_histogram_that_was_converted_is_empty_at_its_start() {
    let mut bench = Bench::new(Rules {
        convert_to_nhcb: true,
        ..zeros()
    });
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_count 3\nh_sum 4\nh_created 15\n# EOF\n";
    bench.openmetrics(body);
    let (_, histograms) = bench.everything();
    let told: Vec<_> = histograms.iter().map(brief).collect();
    let h = || "h{}".to_owned();
    assert_eq!(
        told,
        [
            (h(), 15_000, -53, true, 1),
            (h(), bench.time_ms, -53, false, 0)
        ]
    );
    assert_eq!(histograms[0].1.custom_values, [1.0]);
    bench.openmetrics(body);
    assert_eq!(bench.everything().1.len(), 1);
}

/// What a body leaves in the log at this time, of a target that was there before; how many of it are starts.
fn left(rules: Rules, body: &[u8], format: Format, time_ms: i64) -> (Vec<String>, Scraped) {
    let mut bench = Bench::new(rules);
    bench.time_ms = time_ms - 15_000;
    let scraped = bench.scrape_as(body, format);
    (bench.came(), scraped)
}

#[test]
fn real_bodies_leave_what_they_left_but_created() {
    if corpus().is_none() {
        return;
    }
    let files = listed("openmetrics-tests").into_iter();
    let mut bodies = 0;
    for entry in files.chain(listed("exposition")) {
        let file = entry["file"].as_str().unwrap();
        let format = match file.trim_end_matches(".gz").rsplit_once('.') {
            Some((_, "om")) => Format::OpenMetrics,
            Some((_, "pb")) => Format::Protobuf,
            _ => continue,
        };
        let body = bytes_of(file);
        let (told, with) = left(zeros(), &body, format, 16_000);
        let (untold, without) = left(Rules::default(), &body, format, 16_000);
        assert_eq!(with.error, without.error, "{file}");
        assert_eq!(with.starts, 0, "{file}");
        let others = |lines: Vec<String>| -> Vec<String> {
            let is_other = |line: &String| !line.contains("_created{");
            lines.into_iter().filter(is_other).collect()
        };
        assert_eq!(others(told), others(untold), "{file}");
        bodies += 1;
    }
    assert!(bodies > 100, "{bodies}");
    for (file, time_ms, count, last) in [
        (
            "openmetrics-tests/counter_unit.om",
            124_000,
            1,
            "cc_seconds_total{} 0@123456",
        ),
        (
            "openmetrics-tests/roundtrip.om",
            1_520_430_000_500,
            13,
            "foo_sum{} 0@1520430000123",
        ),
    ] {
        let body = bytes_of(file);
        let (lines, scraped) = left(zeros(), &body, Format::OpenMetrics, time_ms);
        assert_eq!(scraped.starts, count, "{file}");
        assert_eq!(lines[count - 1], last, "{file}");
        let is_created = |line: &String| line.contains("_created{");
        assert!(!lines.iter().any(is_created), "{file}");
    }
}
