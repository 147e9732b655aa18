//! Turns captured requests of both remote-write protocols into what endpoints of both receive, and
//! compares the content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::common::backend::url;
use crate::common::http::Client;
use crate::common::server;
use crate::common::{PATIENCE, eventually};
use ingest::proto::v2::{Histogram, Request};
use ingest::proto::{Exemplar, Label, MetricMetadata, WriteRequest};
use ingest::{ReceiverOptions, Shards, ShardsOptions};
use prost::Message;
use shipper::{Counts, Endpoint, EndpointOptions, ProtobufMessage};
use wal::{IoEngine, Store, StoreOptions, SystemClock};

const V2: &str = "Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 2.0.0\r\n\
    Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
const CUSTOM_BUCKETS: i32 = -53;

type Lists<T> = BTreeMap<String, Vec<T>>;

/// What requests hold, by labels, whichever protocol they came by.
#[derive(Clone, Default, Debug)]
struct Content {
    /// Time, bits of the value, start timestamp.
    samples: Lists<(i64, u64, i64)>,
    histograms: Lists<Vec<u8>>,
    exemplars: Lists<Vec<u8>>,
    /// Messages about metric families.
    metadata: BTreeSet<Vec<u8>>,
    /// Series that came with metadata.
    described: BTreeSet<String>,
}

impl Content {
    fn add(&mut self, body: &[u8], is_v2: bool) {
        let bytes = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        if is_v2 {
            self.add_v2(&Request::decode(&*bytes).unwrap());
        } else {
            self.add_v1(&WriteRequest::decode(&*bytes).unwrap());
        }
    }

    fn add_v1(&mut self, request: &WriteRequest) {
        for series in &request.timeseries {
            let name = named(&series.labels);
            for sample in &series.samples {
                let sample = (sample.timestamp, sample.value.to_bits(), 0);
                self.samples.entry(name.clone()).or_default().push(sample);
            }
            for histogram in &series.histograms {
                let of_series = self.histograms.entry(name.clone()).or_default();
                of_series.push(same_histogram(&histogram.encode_to_vec()));
            }
            for exemplar in &series.exemplars {
                let of_series = self.exemplars.entry(name.clone()).or_default();
                of_series.push(exemplar.encode_to_vec());
            }
        }
        let metadata = request.metadata.iter().map(Message::encode_to_vec);
        self.metadata.extend(metadata);
    }

    fn add_v2(&mut self, request: &Request) {
        let text =
            |number: u32| String::from_utf8(request.symbols[number as usize].clone()).unwrap();
        let labels = |refs: &[u32]| -> Vec<Label> {
            let label = |pair: &[u32]| Label {
                name: text(pair[0]),
                value: text(pair[1]),
            };
            refs.chunks(2).map(label).collect()
        };
        for series in &request.timeseries {
            let of_series = labels(&series.labels_refs);
            let name = named(&of_series);
            for sample in &series.samples {
                let sample = (sample.timestamp, sample.value_bits, sample.start_timestamp);
                self.samples.entry(name.clone()).or_default().push(sample);
            }
            for histogram in &series.histograms {
                let of_series = self.histograms.entry(name.clone()).or_default();
                of_series.push(same_histogram(&histogram.encode_to_vec()));
            }
            for exemplar in &series.exemplars {
                let exemplar = Exemplar {
                    labels: labels(&exemplar.labels_refs),
                    value: exemplar.value,
                    timestamp: exemplar.timestamp,
                };
                let of_series = self.exemplars.entry(name.clone()).or_default();
                of_series.push(exemplar.encode_to_vec());
            }
            let known = series.metadata.filter(|known| known.encoded_len() > 0);
            if let Some(known) = known {
                let metric = of_series.iter().find(|l| l.name == "__name__").unwrap();
                let message = MetricMetadata {
                    r#type: known.r#type,
                    metric_family_name: family(&metric.value, known.r#type).to_owned(),
                    help: text(known.help_ref),
                    unit: text(known.unit_ref),
                };
                self.metadata.insert(message.encode_to_vec());
                self.described.insert(name);
            }
        }
    }

    fn counts(&self) -> Counts {
        fn count<T>(lists: &Lists<T>) -> u64 {
            lists.values().map(|list| list.len() as u64).sum()
        }
        Counts {
            samples: count(&self.samples),
            exemplars: count(&self.exemplars),
            histograms: count(&self.histograms),
            metadata: 0,
        }
    }

    /// What remote write 1.0 can say of it.
    fn as_v1(&self) -> Self {
        let mut content = self.clone();
        for (_, _, start) in content.samples.values_mut().flatten() {
            *start = 0;
        }
        for list in content.histograms.values_mut() {
            let mut all: Vec<_> = list
                .iter()
                .map(|one| Histogram::decode(&**one).unwrap())
                .collect();
            all.retain(|one| one.schema != CUSTOM_BUCKETS);
            for one in &mut all {
                one.start_timestamp = 0;
            }
            *list = all.iter().map(Message::encode_to_vec).collect();
        }
        content.histograms.retain(|_, list| !list.is_empty());
        content
    }
}

fn named(labels: &[Label]) -> String {
    let mut labels = labels.to_vec();
    labels.retain(|label| !label.value.is_empty());
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    crate::common::recorder::labels(&labels)
}

/// A histogram of either protocol in one encoding.
fn same_histogram(bytes: &[u8]) -> Vec<u8> {
    Histogram::decode(bytes).unwrap().encode_to_vec()
}

/// What messages say of families, without the names: a series may have the metadata of a family that
/// is named otherwise.
fn said(metadata: &BTreeSet<Vec<u8>>) -> BTreeSet<(i32, String, String)> {
    let messages = metadata
        .iter()
        .map(|one| MetricMetadata::decode(&**one).unwrap());
    messages
        .map(|one| (one.r#type, one.help, one.unit))
        .collect()
}

fn family(name: &str, kind: i32) -> &str {
    let has_suffix = (3..=5).contains(&kind);
    let mut suffixes = ["_bucket", "_count", "_sum"].iter().filter(|_| has_suffix);
    suffixes
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// A receiver of one protocol on loopback; it lives as long as the test.
fn receiver(message: ProtobufMessage) -> (String, Arc<Mutex<Content>>) {
    let content = Arc::new(Mutex::new(Content::default()));
    let to = Arc::clone(&content);
    let port = server::start("receiver", move |request| {
        let is_v2 = message == ProtobufMessage::V2;
        let kind = request.header("content-type").unwrap();
        assert_eq!(
            kind.contains("io.prometheus.write.v2.Request"),
            is_v2,
            "{kind}"
        );
        let mut of_request = Content::default();
        of_request.add(&request.body, is_v2);
        to.lock().unwrap().add(&request.body, is_v2);
        let counts = of_request.counts();
        let name = "X-Prometheus-Remote-Write";
        let answer = format!(
            "HTTP/1.1 204 No Content\r\n{name}-Samples-Written: {}\r\n\
             {name}-Histograms-Written: {}\r\n{name}-Exemplars-Written: {}\r\n\r\n",
            counts.samples, counts.histograms, counts.exemplars
        );
        Some(answer.into_bytes())
    });
    (url(port), content)
}

/// The captured bodies, and whether they are remote write 2.0.
fn corpus() -> Option<Vec<(Vec<u8>, bool)>> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let dir = given.unwrap_or_else(|| root.join("../shared/corpus"));
    let manifest = std::fs::read(dir.join("manifest.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mut bodies = Vec::new();
    for entry in manifest["entries"].as_array().unwrap() {
        if entry["kind"] == "remote-write" && entry["content_encoding"] == "snappy" {
            let body = std::fs::read(dir.join(entry["file"].as_str().unwrap())).unwrap();
            bodies.push((body, entry["protocol"] == "2.0"));
        }
    }
    Some(bodies)
}

/// What no capture has: start timestamps of all kinds, custom buckets, a stale marker among them.
fn with_start_timestamps() -> Vec<u8> {
    use ingest::proto::v2::{Sample, TimeSeries};
    let sample = |timestamp, start_timestamp| Sample {
        value_bits: 0x7ff0_0000_0000_0002,
        timestamp,
        start_timestamp,
    };
    let histogram = |schema| Histogram {
        schema,
        custom_values: vec![1.0; usize::from(schema == CUSTOM_BUCKETS)],
        timestamp: 8,
        start_timestamp: 3,
        ..Default::default()
    };
    let symbols = ["", "__name__", "started_total", "started_histogram"];
    let request = Request {
        symbols: symbols.map(|s| s.as_bytes().to_vec()).to_vec(),
        timeseries: vec![
            TimeSeries {
                labels_refs: vec![1, 2],
                samples: vec![sample(5, 0), sample(6, 2), sample(7, 0)],
                ..Default::default()
            },
            TimeSeries {
                labels_refs: vec![1, 3],
                histograms: vec![histogram(3), histogram(CUSTOM_BUCKETS)],
                ..Default::default()
            },
        ],
    };
    snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap()
}

/// Whether an endpoint found what was sent, as far as its protocol can say it.
fn compare(endpoint: &str, found: &Content, sent: &Content) {
    let is_v1 = endpoint == "v1";
    let expected = if is_v1 { sent.as_v1() } else { sent.clone() };
    assert_eq!(found.counts(), expected.counts());
    // too long to be shown
    assert!(found.samples == expected.samples, "{endpoint}: samples");
    assert!(
        found.histograms == expected.histograms,
        "{endpoint}: histograms"
    );
    assert!(
        found.exemplars == expected.exemplars,
        "{endpoint}: exemplars"
    );
    if is_v1 {
        assert!(found.metadata == expected.metadata, "metadata");
    } else {
        assert!(said(&sent.metadata).is_superset(&said(&found.metadata)));
        assert!(found.described.is_superset(&sent.described));
    }
}

#[test]
fn captured_requests_of_both_protocols_reach_endpoints_of_both() {
    let Some(mut bodies) = corpus() else {
        println!("skipped: no corpus of captured requests (PENSTOCK_CORPUS)");
        return;
    };
    bodies.push((with_start_timestamps(), true));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let shards = ShardsOptions {
        threads: 1,
        scrape_threads: 1,
        scrape_seed: 0,
        inherited: [].into(),
        engine: IoEngine::Portable,
        shutdown_grace: PATIENCE,
        clock: SystemClock::shared(),
    };
    let front = ReceiverOptions::new("front", ([127, 0, 0, 1], 0).into(), vec![0]);
    let layout = ingest::Layout {
        stores: vec![("store".to_owned(), store.clone())],
        receivers: vec![front],
        scrapers: Vec::new(),
    };
    let shards = Shards::start(&shards, layout).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ship = |name: &str, message| {
        let (url, content) = receiver(message);
        let mut options = EndpointOptions::new(name, &url);
        options.protobuf_message = message;
        options.send_native_histograms = true;
        let clock = SystemClock::shared();
        let endpoint = Endpoint::start(store.clone(), options, clock, runtime.handle()).unwrap();
        (endpoint, content)
    };
    let ends = [
        ship("v1", ProtobufMessage::V1),
        ship("v2", ProtobufMessage::V2),
    ];

    let mut sent = Content::default();
    let mut client = Client::new(shards.addresses()["front"].port());
    for (body, is_v2) in &bodies {
        sent.add(body, *is_v2);
        let reply = if *is_v2 {
            client.send("POST /api/v1/write", V2, body).unwrap()
        } else {
            client.write(body).unwrap()
        };
        assert_eq!(reply.status, 204, "{reply:?}");
    }
    assert!(sent.counts().samples > 50_000, "{:?}", sent.counts());
    assert!(sent.described.len() > 1000);

    for (endpoint, content) in ends {
        eventually(PATIENCE, || match store.endpoint(endpoint.name()) {
            Ok(end) if end.account().pending == 0 => Ok(()),
            end => Err(format!("{:?}", end.map(|end| end.account()))),
        });
        let found = content.lock().unwrap().clone();
        compare(endpoint.name(), &found, &sent);
        let failed = endpoint.stats().snapshot().failed;
        assert!(failed.is_empty(), "{failed:?}");
        runtime.block_on(endpoint.stop(PATIENCE));
    }
    shards.stop_accepting();
    store.close();
    shards.join().unwrap();
}
