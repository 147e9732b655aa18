//! Turns OpenMetrics bodies, whole and broken, into what scrapes say of them.

use super::{Bench, Rules, taken};
use crate::decode::exposition::Format;

#[test]
fn an_open_metrics_body_without_its_end_is_none() {
    let mut bench = Bench::new(Rules::default());
    let body = "# TYPE a gauge\na 1\nb 2\n# EOF\n";
    assert_eq!(
        bench.scrape_as(body.as_bytes(), Format::OpenMetrics),
        taken(0, 2)
    );
    for cut in 1..body.len() {
        let scraped = bench.scrape_as(&body.as_bytes()[..cut], Format::OpenMetrics);
        // The newline behind the end may be missing.
        assert_eq!(scraped.error.is_none(), cut == body.len() - 1, "{cut}");
    }
    assert_eq!(
        bench.scrape_as(body.as_bytes(), Format::OpenMetrics),
        taken(2, 0)
    );
}

/// A body that Prometheus takes and the specification does not: a counter below zero.
const LOOSE: &str = "# TYPE a counter\na_total -1\n# EOF\n";

#[test]
fn what_the_specification_refuses_fails_where_it_is_asked_for_with_its_place() {
    let mut bench = Bench::new(Rules::default());
    assert_eq!(
        bench.scrape_as(LOOSE.as_bytes(), Format::OpenMetrics),
        taken(0, 1)
    );
    // By a reload: what is known of the body was found out by other rules.
    bench.line.change(Rules {
        strict: true,
        ..Rules::default()
    });
    let scraped = bench.scrape_as(LOOSE.as_bytes(), Format::OpenMetrics);
    let error = scraped.error.unwrap();
    assert!(
        error.starts_with("line 2, byte 17: value is negative"),
        "{error}"
    );
    assert_eq!((scraped.followed, scraped.stale), (0, 1));
    assert_eq!(bench.reports()["up"], "0");
    // Nor is one followed that differs from a good one by a value.
    let good = LOOSE.replace("-1", "1");
    let good = bench.scrape_as(good.as_bytes(), Format::OpenMetrics);
    assert_eq!(good.error, None);
    let scraped = bench.scrape_as(LOOSE.as_bytes(), Format::OpenMetrics);
    assert!(scraped.error.is_some());
    // And back.
    bench.line.change(Rules::default());
    for want in [taken(0, 1), taken(1, 0)] {
        assert_eq!(bench.scrape_as(LOOSE.as_bytes(), Format::OpenMetrics), want);
    }
}

#[test]
fn other_formats_are_read_as_ever() {
    let mut bench = Bench::new(Rules {
        strict: true,
        ..Rules::default()
    });
    let body = LOOSE.as_bytes();
    for want in [taken(0, 1), taken(1, 0)] {
        assert_eq!(bench.scrape_as(body, Format::Text), want);
    }
}
