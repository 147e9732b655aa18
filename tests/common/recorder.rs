//! Turns remote-write requests into what was in them, without a backend's own ideas of time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ingest::proto::{Label, WriteRequest};
use prost::Message;

use super::server;

/// Everything received, by labels (`name=value` with commas), in the order it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Time and bits of the value.
    pub(crate) samples: BTreeMap<String, Vec<(i64, u64)>>,
    /// Messages of native histograms and exemplars, as bytes.
    pub(crate) histograms: BTreeMap<String, Vec<Vec<u8>>>,
    pub(crate) exemplars: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Received {
    fn add(&mut self, body: &[u8]) {
        let bytes = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        for series in WriteRequest::decode(&bytes[..]).unwrap().timeseries {
            let name = labels(&series.labels);
            let samples = series.samples.iter();
            let samples = samples.map(|sample| (sample.timestamp, sample.value.to_bits()));
            add(&mut self.samples, &name, samples);
            let histograms = series.histograms.iter().map(Message::encode_to_vec);
            add(&mut self.histograms, &name, histograms);
            let exemplars = series.exemplars.iter().map(Message::encode_to_vec);
            add(&mut self.exemplars, &name, exemplars);
        }
    }
}

/// Adds to a list that is only there if it is not empty.
pub(crate) fn add<T>(
    lists: &mut BTreeMap<String, Vec<T>>,
    name: &str,
    items: impl ExactSizeIterator<Item = T>,
) {
    if items.len() > 0 {
        lists.entry(name.to_owned()).or_default().extend(items);
    }
}

/// Labels as one text.
pub(crate) fn labels(labels: &[Label]) -> String {
    let labels = labels
        .iter()
        .map(|label| format!("{}={}", label.name, label.value));
    labels.collect::<Vec<_>>().join(",")
}

/// A backend that takes everything. It lives as long as the test.
#[derive(Debug)]
pub(crate) struct Recorder {
    port: u16,
    received: Arc<Mutex<Received>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let to = received.clone();
        let port = server::start("recorder", move |request| {
            to.lock().unwrap().add(&request.body);
            Some(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
        });
        Self { port, received }
    }

    pub(crate) fn url(&self) -> String {
        super::backend::url(self.port)
    }

    pub(crate) fn received(&self) -> Received {
        self.received.lock().unwrap().clone()
    }
}
