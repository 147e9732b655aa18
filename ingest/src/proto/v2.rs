//! Turns remote-write 2.0 messages into plain structs and back, the slow and obvious way.
//!
//! As [`super`], for tests and tools. Symbols are bytes, because the scanner refuses text that is not
//! UTF-8 per series where prost refuses the request.

use prost::Message;

use super::{BucketSpan, Count, ZeroCount};

/// The body of a remote-write 2.0 request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// All strings of the request; the first is empty.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub symbols: Vec<Vec<u8>>,
    /// Series with what was observed for them.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries>,
}

/// One label set and what was observed for it.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Numbers of symbols: name, value, name, value.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Float samples in order of time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Native histograms; never together with samples.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    /// Exemplars of the series.
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
    /// What the metric is.
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
    /// The start timestamp as drafts of the protocol had it.
    #[prost(int64, tag = "6")]
    pub created_timestamp: i64,
}

/// A float at a time.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The value as its bits, which survive a copy whatever they are.
    #[prost(fixed64, tag = "1")]
    pub value_bits: u64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// Since when the counter counts; 0 is unset.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// An observation that points at a trace.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// Numbers of symbols: name, value, name, value.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// What was observed.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Metadata {
    /// The kind of metric, with the numbers of [`super::MetricType`].
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// The symbol with the help text.
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    /// The symbol with the unit.
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

/// A native histogram sample, integer or float.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Observations in total.
    #[prost(oneof = "Count", tags = "1, 2")]
    pub count: Option<Count>,
    /// Sum of the observations; carries the stale marker.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// Resolution; -53 means custom buckets.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// Width of the zero bucket.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    pub zero_count: Option<ZeroCount>,
    /// Which negative buckets exist.
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    /// Negative bucket counts of an integer histogram, as differences.
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    /// Negative bucket counts of a float histogram.
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    /// Which positive buckets exist.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// Positive bucket counts of an integer histogram, as differences.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// Positive bucket counts of a float histogram.
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    /// 0 unknown, 1 yes, 2 no, 3 gauge.
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// Upper bounds of custom buckets.
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
    /// Since when the histogram counts; 0 is unset.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}
