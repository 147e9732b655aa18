//! Turns the templates of a fleet into the requests of one connection, round after round.
//!
//! Templates are dealt out to connections like cards, so a series always comes on the same
//! connection, in order.

use fastrand::Rng;

use crate::fleet::{Fleet, Template};
use crate::series::{Protocol, put_number};

/// What a connection sends.
#[derive(Debug)]
pub(crate) struct Deck {
    /// The message of all requests.
    pub(crate) protocol: Protocol,
    /// Number among all templates, and template.
    templates: Vec<(u64, Template)>,
    per_request: usize,
    first_copy: u32,
    copies: usize,
    /// Requests of a copy over all connections.
    requests_per_copy: u64,
    random: Option<Rng>,
    body: Vec<u8>,
}

/// A request to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'d> {
    /// The compressed body.
    pub(crate) body: &'d [u8],
    /// Samples in it.
    pub(crate) samples: u64,
}

impl Deck {
    /// The decks of so many connections; fewer if there are not as many templates.
    pub(crate) fn deal(fleet: &Fleet, connections: usize) -> Vec<Self> {
        let requests = fleet.templates.len().div_ceil(fleet.per_request);
        // A connection without requests would look like one that gave up.
        let connections = connections.clamp(1, requests.max(1));
        let deck = |number: usize| {
            let templates = (0..)
                .zip(&fleet.templates)
                .skip(number)
                .step_by(connections);
            Self {
                protocol: fleet.protocol,
                templates: templates.map(|(at, one)| (at, one.clone())).collect(),
                per_request: fleet.per_request,
                first_copy: fleet.copies.start,
                copies: fleet.copies.len(),
                requests_per_copy: requests as u64,
                random: fleet.is_shuffled.then(|| Rng::with_seed(number as u64)),
                body: Vec::new(),
            }
        };
        (0..connections).map(deck).collect()
    }

    /// Its requests in a round.
    pub(crate) fn requests(&self) -> usize {
        self.requests_of_copy() * self.copies
    }

    /// The number of a request among those of all connections in a round.
    pub(crate) fn number(&self, request: usize) -> u64 {
        let (copy, at) = self.split(request);
        // Of shuffled templates any number between those of the other connections will do.
        let first = self.templates[at * self.per_request].0 / self.per_request as u64;
        copy as u64 * self.requests_per_copy + first
    }

    /// Begins a round: the order may be another.
    pub(crate) fn begin_round(&mut self) {
        if let Some(random) = &mut self.random {
            random.shuffle(&mut self.templates);
        }
    }

    /// The template of a request that has one.
    pub(crate) fn template(&mut self, request: usize) -> &mut Template {
        let (_, at) = self.split(request);
        &mut self.templates[at * self.per_request].1
    }

    /// A request of the round with this timestamp in all its samples.
    pub(crate) fn request(&mut self, request: usize, timestamp_ms: i64) -> Request<'_> {
        let (copy, at) = self.split(request);
        let first = at * self.per_request;
        let last = (first + self.per_request).min(self.templates.len());
        let parts = &mut self.templates[first..last];
        if self.copies > 1 || self.first_copy > 0 {
            let generation = self.first_copy + u32::try_from(copy).unwrap_or(u32::MAX);
            for (_, part) in &mut *parts {
                part.become_copy(generation);
            }
        }
        let samples = parts.iter().map(|(_, part)| part.samples).sum();
        if let [(_, only)] = parts {
            let body = only.at(timestamp_ms);
            return Request { body, samples };
        }
        self.body.clear();
        let message_bytes = parts.iter().map(|(_, part)| part.message_bytes).sum();
        put_number(message_bytes, &mut self.body);
        for (_, part) in parts {
            self.body.extend_from_slice(part.elements_at(timestamp_ms));
        }
        Request {
            body: &self.body,
            samples,
        }
    }

    fn requests_of_copy(&self) -> usize {
        self.templates.len().div_ceil(self.per_request)
    }

    /// Which copy a request is of, and where in it.
    fn split(&self, request: usize) -> (usize, usize) {
        let each = self.requests_of_copy();
        (request / each, request % each)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ingest::proto::WriteRequest;
    use prost::Message;

    use super::*;

    const MS: i64 = 1_767_225_600_000;

    /// The label sets of a request, as bytes.
    fn series(request: Request) -> Vec<Vec<u8>> {
        let message = snap::raw::Decoder::new()
            .decompress_vec(request.body)
            .unwrap();
        let message = WriteRequest::decode(&*message).unwrap();
        assert_eq!(message.timeseries.len() as u64, request.samples);
        assert!(
            message
                .timeseries
                .iter()
                .all(|series| series.samples[0].timestamp == MS)
        );
        let only_labels = |mut series: ingest::proto::TimeSeries| {
            series.samples.clear();
            series.encode_to_vec()
        };
        message.timeseries.into_iter().map(only_labels).collect()
    }

    fn round(decks: &mut [Deck]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for deck in decks {
            deck.begin_round();
            for request in 0..deck.requests() {
                all.extend(series(deck.request(request, MS)));
            }
        }
        all
    }

    #[test]
    fn a_shuffled_round_has_every_series_once_in_another_order() {
        let mut decks = Deck::deal(&Fleet::shuffled(5_000).unwrap(), 2);
        assert_eq!(decks.len(), 2);
        let (first, second) = (round(&mut decks), round(&mut decks));
        assert_ne!(first, second);
        let sets = [first, second].map(BTreeSet::from_iter);
        assert_eq!(sets[0].len(), 5_000);
        assert_eq!(sets[0], sets[1]);
    }

    #[test]
    fn targets_stay_whole_when_shuffled() {
        let mut decks = Deck::deal(&Fleet::shuffled(2_000).unwrap(), 1);
        let in_order = Fleet::in_order(2_000).unwrap();
        let plain = round(&mut Deck::deal(&in_order, 1));
        let shuffled = round(&mut decks);
        let targets: BTreeSet<_> = plain.chunks(100).collect();
        assert!(shuffled.chunks(100).all(|target| targets.contains(target)));
    }

    #[test]
    fn copies_are_other_series_and_numbered_behind_each_other() {
        let fleet = Fleet::in_order(5_000).unwrap().with_copies(1..4);
        let mut decks = Deck::deal(&fleet, 2);
        assert_eq!(BTreeSet::from_iter(round(&mut decks)).len(), 15_000);
        let numbers = decks
            .iter()
            .flat_map(|deck| (0..deck.requests()).map(|request| deck.number(request)));
        assert_eq!(BTreeSet::from_iter(numbers), BTreeSet::from_iter(0..9));
        let others = round(&mut Deck::deal(&fleet.with_copies(0..1), 1));
        let seen: BTreeSet<_> = round(&mut decks).into_iter().collect();
        assert!(others.iter().all(|series| !seen.contains(series)));
    }
}
