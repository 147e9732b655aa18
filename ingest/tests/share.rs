//! Turns requests to one of several agents into what each of them stores, and what the sender is told.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Response};
use ingest::proto::v2;
use ingest::share::{Inlet, NoRoom, Part, Passing, Peers, Sharing, View};
use ingest::{Message, ReceiverOptions, TenantsOptions};
use parking_lot::Mutex;
use prost::Message as _;
use wal::IoEngine;

use crate::common::*;

const VIEW: u64 = 7;

type Answer = Result<Response<Bytes>, String>;

/// The only other agent: it owns the series with an even key.
struct Other {
    answer: Box<dyn Fn(Part) -> Passing + Send + Sync>,
    parts: Mutex<Vec<Part>>,
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Other")
    }
}

impl Peers for Other {
    fn owner(&self, key: u64) -> Option<usize> {
        key.is_multiple_of(2).then_some(0)
    }

    fn count(&self) -> usize {
        1
    }

    fn pass(&self, to: usize, part: Part) -> Passing {
        assert_eq!(to, 0);
        self.parts.lock().push(part.clone());
        (self.answer)(part)
    }
}

fn other(answer: impl Fn(Part) -> Passing + Send + Sync + 'static) -> Arc<Other> {
    Arc::new(Other {
        answer: Box::new(answer),
        parts: Mutex::default(),
    })
}

/// One that answers like this, in turn.
fn answering(answers: impl IntoIterator<Item = Answer>) -> Arc<Other> {
    let answers: Mutex<VecDeque<Answer>> = Mutex::new(answers.into_iter().collect());
    other(move |_| {
        let answer = answers.lock().pop_front().unwrap();
        Box::pin(async { answer })
    })
}

fn status(status: u16, text: &'static str) -> Answer {
    let answer = Response::builder().status(status);
    Ok(answer.body(Bytes::from_static(text.as_bytes())).unwrap())
}

/// One that really stores what it gets.
fn storing(inlet: Inlet) -> Arc<Other> {
    other(move |part| {
        let inlet = inlet.clone();
        Box::pin(async move {
            let answer = inlet.take(part).await.unwrap().unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Ok(Response::from_parts(head, body))
        })
    })
}

fn view(sharing: &Sharing, peers: Option<Arc<Other>>) {
    let peers = peers.map(|peers| peers as _);
    let view = View {
        number: VIEW,
        peers,
    };
    sharing.change(view, || {});
}

/// A receiver that shares its series.
fn start(peers: Option<Arc<Other>>, change: impl FnOnce(&mut Setup)) -> (Running, Sharing) {
    let sharing = Sharing::unknown();
    view(&sharing, peers);
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.sharing = Some(sharing.clone());
    change(&mut setup);
    (setup.start(), sharing)
}

fn many(count: usize) -> Vec<u8> {
    let series = (0..count).map(|n| series(&[("__name__", "m"), ("n", &n.to_string())], 1.0, 5));
    compressed(series.collect())
}

fn labels(running: &Running) -> BTreeSet<Vec<u8>> {
    let all = stored(&running.stores[0]);
    let count = all.len();
    let labels: BTreeSet<_> = all.into_iter().map(|(labels, ..)| labels).collect();
    assert_eq!(labels.len(), count, "each once");
    labels
}

#[test]
fn each_series_is_stored_by_its_owner_once_and_acknowledged_when_all_are() {
    let (owner, _) = start(Some(answering([])), |_| {});
    let inlet = owner.shards.inlets()["front"].clone();
    let (front, _) = start(Some(storing(inlet)), |_| {});
    let mut client = front.connect();
    assert_eq!(client.post(&many(100)).status, 204);
    let (here, there) = (labels(&front), labels(&owner));
    assert!(here.len() > 20 && there.len() > 20);
    assert_eq!(here.union(&there).count(), 100);
    let (here, there) = (front.snapshot(), owner.snapshot());
    assert_eq!(here.passed_on_series, there.samples);
    assert_eq!((there.passed_in, here.samples + there.samples), (1, 100));
    assert_eq!(here.requests[0], 1);
    assert_eq!(there.requests.iter().sum::<u64>(), 0);

    // Of 2.0 the sender is told the sum.
    let symbols = (0..100).map(|n: u32| n.to_string().into_bytes());
    let series = (0..100).map(|n| v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 4 + n],
        samples: vec![v2::Sample {
            timestamp: 5,
            ..v2::Sample::default()
        }],
        ..v2::TimeSeries::default()
    });
    let request = v2::Request {
        symbols: ["", "__name__", "m2", "n"]
            .map(|text| text.as_bytes().to_vec())
            .into_iter()
            .chain(symbols)
            .collect(),
        timeseries: series.collect(),
    };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec());
    let kind = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    client.send(&with_head("POST /api/v1/write", kind, &body.unwrap()));
    let reply = client.reply();
    let written = header(&reply.head, "x-prometheus-remote-write-samples-written");
    assert_eq!((reply.status, written), (204, Some("100")));
    assert_eq!(labels(&front).len() + labels(&owner).len(), 200);
    assert!(owner.snapshot().passed_in == 2);
    front.stop();
    owner.stop();
}

#[test]
fn what_an_owner_does_not_take_is_not_acknowledged_and_nothing_is_kept() {
    let cases = [
        (Err("it is away".to_owned()), 503, "it is away"),
        (
            status(409, "another view"),
            503,
            "409 Conflict: another view",
        ),
        (status(404, "no such receiver"), 503, "404"),
        (status(500, "broken"), 503, "500"),
        (status(429, "slower"), 429, "slower"),
        (status(413, "too large"), 413, "too large"),
    ];
    let answers = cases.iter().map(|(answer, ..)| answer.clone());
    let (front, sharing) = start(Some(answering(answers.collect::<Vec<_>>())), |_| {});
    let mut client = front.connect();
    for (at, (_, status, text)) in cases.iter().enumerate() {
        let reply = client.post(&many(10));
        assert_eq!(reply.status, *status, "{reply:?}");
        assert!(reply.text.contains(text), "{reply:?}");
        assert_eq!(front.snapshot().passing_failures, at as u64 + 1);
    }
    view(&sharing, None);
    let reply = client.post(&many(10));
    assert_eq!(
        (reply.status, header(&reply.head, "retry-after")),
        (503, Some("1"))
    );
    assert!(labels(&front).is_empty());
    front.stop();
}

#[test]
fn what_an_owner_refuses_is_told_and_the_rest_is_stored() {
    let answer = status(400, "some series were refused, first: x\n");
    let (front, _) = start(Some(answering([answer])), |_| {});
    let reply = front.connect().post(&many(10));
    assert_eq!(
        (reply.status, &*reply.text),
        (400, "some series were refused, first: x\n")
    );
    assert!(!labels(&front).is_empty());
    front.stop();
}

#[test]
fn nothing_is_kept_by_a_view_that_is_over() {
    for (number, is_known) in [(VIEW + 1, true), (VIEW, false)] {
        let sharing = Sharing::unknown();
        let changed = sharing.clone();
        let peers = other(move |_| {
            let peers = is_known.then(|| answering([]) as _);
            changed.change(View { number, peers }, || {});
            Box::pin(async { status(204, "") })
        });
        view(&sharing, Some(peers));
        let mut setup = Setup::new(IoEngine::Portable);
        setup.receiver.sharing = Some(sharing);
        let front = setup.start();
        assert_eq!(front.connect().post(&many(10)).status, 503);
        assert!(labels(&front).is_empty());
        front.stop();
    }
}

#[tokio::test]
async fn a_part_that_was_cut_by_another_view_is_refused() {
    let (owner, sharing) = start(Some(answering([])), |_| {});
    let inlet = owner.shards.inlets()["front"].clone();
    let part = |view| Part {
        receiver: "front".into(),
        view,
        message: Message::V1,
        body: many(3).into(),
        headers: HeaderMap::new(),
    };
    let take = async |view| inlet.take(part(view)).await.unwrap().unwrap().status();
    assert_eq!(take(VIEW + 1).await, 409);
    assert_eq!(take(VIEW).await, 204);
    view(&sharing, None);
    assert_eq!(take(VIEW).await, 409);
    // A receiver that shares no more takes none.
    view(&sharing, Some(answering([])));
    let alone = ReceiverOptions::new("front", owner.shards.addresses()["front"], vec![0]);
    let applied = owner.shards.apply(layout(&owner.stores, vec![alone]));
    assert!(applied.unwrap().failed.is_empty());
    assert_eq!(inlet.take(part(VIEW)).await.unwrap_err(), NoRoom);
    assert_eq!(labels(&owner).len(), 3);
    tokio::task::spawn_blocking(|| owner.stop()).await.unwrap();
}

#[test]
fn limits_are_those_of_the_whole_request_and_tenants_go_with_it() {
    let peers = answering([status(204, "")]);
    let (front, _) = start(Some(peers.clone()), |setup| {
        setup.receiver.series_max = 10;
        setup.receiver.tenants = Some(TenantsOptions::default());
    });
    let mut client = front.connect();
    let reply = client.post(&many(11));
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("11 series"), "{reply:?}");
    assert!(peers.parts.lock().is_empty());
    let line = "POST /api/v1/write";
    client.send(&with_head(
        line,
        "X-Scope-OrgID: t\r\nX-Other: o\r\n",
        &many(10),
    ));
    assert_eq!(client.reply().status, 204);
    let headers = peers.parts.lock()[0].headers.clone();
    assert_eq!(
        (headers.len(), &headers["x-scope-orgid"]),
        (1, &"t".parse().unwrap())
    );
    front.stop();
}

#[test]
fn a_receiver_that_does_not_share_has_no_inlet() {
    let alone = Setup::new(IoEngine::Portable).start();
    assert!(alone.shards.inlets().is_empty());
    assert_eq!(alone.connect().post(&many(10)).status, 204);
    assert_eq!(labels(&alone).len(), 10);
    alone.stop();
}
