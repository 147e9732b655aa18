//! Turns peers that take their time, or very many of them, into closed connections and no harm.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

/// How long a peer has for a head, and again for a body.
const READ_TIMEOUT: Duration = Duration::from_millis(300);

/// Sends `bytes` one at a time, and then `more` for ever, until the connection is closed; what was answered.
fn drip(mut stream: TcpStream, bytes: &[u8], more: u8) -> String {
    // The pace: a read that times out sends the next byte.
    stream
        .set_read_timeout(Some(Duration::from_millis(2)))
        .unwrap();
    let mut bytes = bytes.iter().copied().chain(std::iter::repeat(more));
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => {
                let waits = [
                    ErrorKind::WouldBlock,
                    ErrorKind::TimedOut,
                    ErrorKind::Interrupted,
                ];
                assert!(waits.contains(&error.kind()), "{error}");
                let byte = bytes.next().unwrap();
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
            }
        }
    }
    String::from_utf8(answer).unwrap()
}

/// Bytes that keep coming are no excuse: a head, and a body, have a time as a whole.
#[test]
fn one_byte_at_a_time_ends_at_the_deadline() {
    let mut battery = Battery::start_with(|setup| setup.receiver.read_timeout = READ_TIMEOUT);
    let address = battery.running.shards.addresses()["front"];
    let head = "POST /api/v1/write HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n";
    let answers: Vec<String> = std::thread::scope(|scope| {
        let body = format!("{head}\r\n");
        // The head at once, so that its time is not up before the body.
        let slow_body = scope.spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
            drip(stream, &[], b'x')
        });
        let slow_chunks = scope.spawn(move || {
            let head = "POST /api/v1/write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            drip(stream, &b"1\r\nx\r\n".repeat(10_000), b'0')
        });
        let slow_head = scope.spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            drip(stream, format!("{head}X-Slow: ").as_bytes(), b'x')
        });
        let slow_line =
            scope.spawn(move || drip(TcpStream::connect(address).unwrap(), b"GET /", b'x'));
        let all = [slow_body, slow_chunks, slow_head, slow_line];
        all.into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for answer in &answers[..2] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(answers[2..], ["", ""], "closed without a word");
    let mut client = battery.connect();
    battery.is_good(&mut client, "slow peers");
    drop(client);
    assert_eq!(battery.running.snapshot().connections_timed_out, 2);
    battery.end();
}

#[test]
fn a_thousand_idle_connections_are_in_nobodys_way() {
    let mut battery = Battery::start();
    let mut idle: Vec<Client> = (0..1000).map(|_| battery.connect()).collect();
    battery.running.until(|now| now.connections_open == 1000);
    let mut client = battery.connect();
    for _ in 0..20 {
        battery.is_good(&mut client, "idle connections");
    }
    // They are alive, and have cost nothing but a place.
    assert_eq!(battery.running.snapshot().in_flight_bytes, 0);
    for one in idle.iter_mut().step_by(100) {
        battery.is_good(one, "idleness");
    }
    drop((client, idle));
    battery.end();
}

/// Whoever promises much and sends little holds what was sent, not what was promised.
#[test]
fn promises_take_no_room() {
    let mut battery = Battery::start_with(|setup| setup.receiver.in_flight_bytes_max = 256 << 10);
    let head = "POST /api/v1/write HTTP/1.1\r\nHost: t\r\nContent-Length: 65536\r\n\r\nx";
    let promising: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = battery.connect();
            client.send(head.as_bytes());
            client
        })
        .collect();
    battery.running.until(|now| now.in_flight_bytes == 100);
    let mut client = battery.connect();
    battery.is_good(&mut client, "promises");
    drop((client, promising));
    battery.end();
}

/// A body that is refused is read away, which may take its time; it holds nothing meanwhile.
#[test]
fn a_refused_body_holds_nothing_while_the_rest_is_awaited() {
    let battery = Battery::start();
    let mut client = battery.connect();
    client.send(b"POST /api/v1/write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(b"10000\r\n");
    client.send(&[0; 64 << 10]);
    let running = &battery.running;
    running.until(|now| now.in_flight_bytes == 64 << 10);
    client.send(b"\r\n1\r\nx\r\n");
    running.until(|now| now.in_flight_bytes == 0);
    assert_eq!(
        running.snapshot().requests.iter().sum::<u64>(),
        0,
        "not answered yet"
    );
    client.send(b"0\r\n\r\n");
    assert_eq!(client.reply().status, 413);
    drop(client);
    battery.end();
}
