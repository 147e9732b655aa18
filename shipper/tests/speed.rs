//! Temporary.
#![allow(clippy::all, unused)]
mod common;
use common::*;
use std::sync::{Arc, atomic::*};
use std::time::{Duration, Instant};
use http_body_util::{BodyExt, Full};
use hyper::{Response, service::service_fn, body::Bytes};
use hyper_util::rt::TokioIo;
use wal::*;
use shipper::labels::canonical;

fn sink() -> (String, Arc<AtomicU64>, Arc<parking_lot::Mutex<Vec<Instant>>>) {
    let n = Arc::new(AtomicU64::new(0)); let at = Arc::new(parking_lot::Mutex::new(vec![]));
    let (tx, rx) = std::sync::mpsc::channel();
    let (n2, at2) = (n.clone(), at.clone());
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
            let l = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tx.send(format!("http://{}/", l.local_addr().unwrap())).unwrap();
            loop {
                let (s, _) = l.accept().await.unwrap();
                s.set_nodelay(true).unwrap();
                let (n, at) = (n2.clone(), at2.clone());
                tokio::spawn(async move {
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(s), service_fn(move |r: hyper::Request<hyper::body::Incoming>| { let (n, at) = (n.clone(), at.clone()); async move {
                        let b = r.into_body().collect().await.unwrap().to_bytes();
                        n.fetch_add(b.len() as u64, Ordering::Relaxed); at.lock().push(Instant::now());
                        Ok::<_, std::convert::Infallible>(Response::builder().status(204).body(Full::<Bytes>::default()).unwrap())
                    }})).await.ok();
                });
            }
        });
    });
    (rx.recv().unwrap(), n, at)
}

#[test]
fn throughput() {
    for shards in [1u16, 4] {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let c = store.committer().unwrap().spawn_thread().unwrap();
    let _pin = store.endpoint("a").unwrap();
    let mut w = store.writer().unwrap();
    let labels: Vec<_> = (0..100_000u32).map(|i| { let t = i/250; canonical(&[
        ("__name__", &format!("container_network_transmit_{}_total", i % 250)), ("cluster","prod-eu-1"), ("container", &format!("checkout-{}", t%20)),
        ("device", &format!("/dev/nvme{}", i % 7)), ("instance", &format!("10.42.{}.{}:10250", t%100, t%250)), ("job","kubelet-cadvisor"), ("namespace", &format!("team-{:02}-production", t%30)),
        ("node", &format!("ip-10-42-{}-17.internal", t%100)), ("pod", &format!("checkout-7d9f8b6c5d-{t:05}")), ("service","kubelet-svc"), ("zone","eu-west-1a")]) }).collect();
    let mut new: Vec<_> = labels.iter().map(|l| NewSeries{hash: store.series().hash(l), labels: l, series: SeriesRef::NONE}).collect();
    store.series().define(&mut new).unwrap();
    let refs: Vec<_> = new.iter().map(|n| n.series).collect();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut last = Position::ZERO;
    for round in 0..50i64 { for chunk in refs.chunks(2000) {
        let s: Vec<_> = chunk.iter().enumerate().map(|(i,r)| Sample{series:*r, timestamp_ms: 1_760_000_000_000 + round*15000, value_bits: ((round*17 + i as i64) as f64).to_bits()}).collect();
        loop { match w.append(&s, &[]) { Ok(p) => { last = p; break } Err(e) if e.is_full() => std::thread::sleep(Duration::from_millis(5)), Err(e) => panic!("{e}") } }
    } }
    rt.block_on(store.durable().reached(last)).unwrap();
    let (url, bytes, _) = sink();
    let mut o = shipper::EndpointOptions::new("a", &url); o.queue.max_shards = shards;
    let t = Instant::now();
    let e = shipper::Endpoint::start(store.clone(), o, SystemClock::shared(), rt.handle()).unwrap();
    while e.acked() < last { std::thread::sleep(Duration::from_millis(2)); }
    let d = t.elapsed();
    let s = e.stats().snapshot();
    println!("shards {shards}: 5M samples in {d:?} = {:.2} M/s, {:.0} ns/sample, {:.1} B/sample, {} batches, waits {}", 5.0/d.as_secs_f64(), d.as_nanos() as f64/5e6, bytes.load(Ordering::Relaxed) as f64/5e6, s.sent_batches, s.queue_full_waits);
    // freshness: 100 samples every 10 ms
    rt.block_on(async { println!("{:?}", e.stop(LONG).await) });
    let (url, _, at) = sink();
    let mut o = shipper::EndpointOptions::new("a", &url); o.queue.max_shards = shards;
    let e = shipper::Endpoint::start(store.clone(), o, SystemClock::shared(), rt.handle()).unwrap();
    let mut lat = vec![];
    for i in 0..300i64 {
        let s: Vec<_> = refs[..100].iter().map(|r| Sample{series:*r, timestamp_ms: 1_770_000_000_000 + i*10, value_bits: i as u64}).collect();
        let before = at.lock().len(); let t = Instant::now();
        let p = w.append(&s, &[]).unwrap();
        while e.acked() < p { std::thread::sleep(Duration::from_micros(200)); }
        lat.push(t.elapsed());
        std::thread::sleep(Duration::from_millis(10).saturating_sub(t.elapsed()));
    }
    lat.sort();
    println!("append to acked p50 {:?} p99 {:?}", lat[150], lat[297]);
    rt.block_on(async { println!("{:?}", e.stop(LONG).await) });
    drop(w); store.close(); c.join().unwrap();
    }
}
