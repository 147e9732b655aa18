//! Turns remote-write requests into what was in them, without a backend's own ideas of time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use ingest::proto::{Label, WriteRequest};
use prost::Message;

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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Received::default()));
        let to = received.clone();
        let accept = move || {
            for stream in listener.incoming() {
                let (stream, to) = (stream.unwrap(), to.clone());
                // Ends with its connection.
                let thread = std::thread::Builder::new().name("sink".to_owned());
                thread.spawn(move || serve(stream, &to)).unwrap();
            }
        };
        let thread = std::thread::Builder::new().name("sinks".to_owned());
        thread.spawn(accept).unwrap();
        Self { port, received }
    }

    pub(crate) fn url(&self) -> String {
        super::backend::url(self.port)
    }

    pub(crate) fn received(&self) -> Received {
        self.received.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, to: &Mutex<Received>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        to.lock().unwrap().add(&body);
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        stream.get_mut().write_all(answer).unwrap();
    }
}
