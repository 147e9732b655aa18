//! Turns the requests of an endpoint into lines of the agent's log output.
//!
//! `prometheus.echo` is a writer like any other, with its log and a position, whose endpoint is this: what
//! it shows was kept, and is shown again only if the agent ends before the position is saved.

use bytes::Bytes;
use prost::Message;
use reqwest::header::HeaderMap;
use reqwest::{Response, Url};
use shipper::EndpointOptions;
use shipper::transport::{Answer, Transport};

use crate::component::Echo;

/// Lines of a request that are written apart; more are counted in one.
const LINES_MAX: usize = 10_000;

/// The one endpoint of an echo.
pub(super) fn endpoint() -> EndpointOptions {
    let mut options = EndpointOptions::new("echo", "http://echo.invalid/");
    options.queue.max_shards = 1;
    options.metadata.send = false;
    options
}

/// Writes what it is sent.
#[derive(Debug)]
pub(super) struct Lines {
    format: Echo,
}

impl Lines {
    pub(super) const fn new(format: Echo) -> Self {
        Self { format }
    }
}

impl Transport for Lines {
    fn post<'a>(&'a self, _: &'a Url, _: HeaderMap, body: Bytes) -> Answer<'a> {
        Box::pin(async move {
            let lines = lines(&body, self.format).ok_or("the request cannot be read")?;
            let left_out = lines.len().saturating_sub(LINES_MAX);
            for line in lines.iter().take(LINES_MAX) {
                tracing::info!(target: "prometheus.echo", "{line}");
            }
            if left_out > 0 {
                tracing::info!(target: "prometheus.echo", left_out, "more lines");
            }
            Ok(Response::from(hyper::Response::new("")))
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    series: Vec<Series>,
}

#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

/// Every sample of a remote write 1.0 request in exposition format.
fn lines(compressed: &[u8], format: Echo) -> Option<Vec<String>> {
    let body = snap::raw::Decoder::new().decompress_vec(compressed).ok()?;
    let request = Request::decode(&*body).ok()?;
    let mut lines = Vec::new();
    for series in request.series {
        let labels = exposed(&series.labels);
        for sample in series.samples {
            let (value, ms) = (sample.value, sample.timestamp_ms);
            lines.push(match format {
                Echo::Text => format!("{labels} {} {ms}", number(value)),
                Echo::OpenMetrics => {
                    let (seconds, rest) = (ms.div_euclid(1000), ms.rem_euclid(1000));
                    format!("{labels} {} {seconds}.{rest:03}", number(value))
                }
            });
        }
    }
    Some(lines)
}

/// `name{label="value",...}`.
fn exposed(labels: &[Label]) -> String {
    let name = labels.iter().find(|label| label.name == "__name__");
    let name = name.map(|label| label.value.as_str()).unwrap_or_default();
    let others = labels.iter().filter(|label| label.name != "__name__");
    let others: Vec<String> = others
        .map(|label| {
            let value = label.value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{}=\"{}\"", label.name, value.replace('\n', "\\n"))
        })
        .collect();
    if others.is_empty() {
        return name.to_owned();
    }
    format!("{name}{{{}}}", others.join(","))
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_line_of_exposition() {
        let label = |name: &str, value: &str| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let request = Request {
            series: vec![Series {
                labels: vec![label("__name__", "up"), label("job", "a\"b\nc")],
                samples: vec![
                    Sample {
                        value: 1.5,
                        timestamp_ms: 1_700_000_000_123,
                    },
                    Sample {
                        value: f64::INFINITY,
                        timestamp_ms: 2,
                    },
                ],
            }],
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap();
        assert_eq!(
            lines(&body, Echo::Text).unwrap(),
            [
                "up{job=\"a\\\"b\\nc\"} 1.5 1700000000123",
                "up{job=\"a\\\"b\\nc\"} +Inf 2"
            ]
        );
        let open = lines(&body, Echo::OpenMetrics).unwrap();
        assert_eq!(open[0], "up{job=\"a\\\"b\\nc\"} 1.5 1700000000.123");
        assert_eq!(lines(b"not snappy", Echo::Text), None);
    }
}
