//! Messages there and back, and bytes that are none.

use proptest::prelude::*;

use super::*;

fn some_node(name: &str, port: u16) -> Node {
    Node {
        name: name.into(),
        address: format!("10.0.0.1:{port}").into(),
        started_ms: 1_700_000_000_123,
        version: 7,
        state: State::Participant,
    }
}

fn contents() -> Vec<Content<'static>> {
    let stale = Refusal::Stale {
        started_ms: 3,
        version: 4,
    };
    let node = some_node("n", 1);
    vec![
        Content::Gossip(b"packet"),
        Content::Hello(node.clone()),
        Content::News {
            node: node.clone(),
            is_gone: true,
        },
        Content::Known(node),
        Content::Refused(stale),
        Content::Refused(Refusal::NameTaken { started_ms: 8 }),
    ]
}

#[test]
fn what_is_sealed_is_opened() {
    for content in contents() {
        let bytes = seal("eu", &content);
        assert_eq!(open(&bytes), Ok(("eu", content)));
    }
}

#[test]
fn no_changed_or_cut_byte_is_taken() {
    for content in contents() {
        let bytes = seal("eu", &content);
        for at in 0..bytes.len() {
            assert_eq!(open(&bytes[..at]), Err(Malformed), "cut at {at}");
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x20;
            assert_eq!(open(&changed), Err(Malformed), "changed at {at}");
        }
        assert_eq!(open(&[&bytes[..], &[0]].concat()), Err(Malformed));
    }
    assert_eq!(open(&vec![0; MESSAGE_BYTES_MAX + 1]), Err(Malformed));
}

#[test]
fn every_message_of_the_protocol_is_read_as_written() {
    let (target, probe_number) = (some_node("t", 3), 9);
    let origin = target.clone();
    for message in [
        Message::Ping(5),
        Message::Ack(5),
        Message::PingReq {
            target: target.clone(),
            probe_number,
        },
        Message::IndirectPing {
            origin: origin.clone(),
            probe_number,
        },
        Message::IndirectAck {
            target,
            probe_number,
        },
        Message::ForwardedAck {
            origin,
            probe_number,
        },
        Message::Announce,
        Message::Feed,
        Message::Gossip,
        Message::Broadcast,
        Message::TurnUndead,
    ] {
        let header = Header {
            src: some_node("a", 1),
            src_incarnation: 300,
            dst: some_node("b", 2),
            message,
        };
        let mut bytes = Vec::new();
        WireCodec.encode_header(&header, &mut bytes).unwrap();
        assert_eq!(packet(&bytes).unwrap().header, header);
        for at in 0..bytes.len() {
            assert!(packet(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn what_does_not_fit_is_not_begun() {
    let member = Member::alive(some_node("a", 1));
    let mut room = [0_u8; 20];
    let mut into = &mut room[..];
    assert_eq!(WireCodec.encode_member(&member, &mut into), Err(Malformed));
    assert_eq!(into.len(), 20);
}

#[test]
fn an_address_is_one_host_and_one_port() {
    for good in [
        "h:1",
        "10.0.0.1:65535",
        "a-b_c.d:80",
        "[::1]:9",
        "[fe80::1]:12345",
    ] {
        assert!(is_address(good), "{good}");
    }
    let long = format!("{}:1", "h".repeat(300));
    for bad in [
        "", "h", ":1", "h:", "h:0", "h:65536", "h:+1", "h h:1", "u@h:1", "h/p:1", "::1:9", "[h]:1",
        "h:1\n", &long,
    ] {
        assert!(!is_address(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(packet(&bytes));
        let sealed = seal("", &Content::Gossip(&bytes));
        prop_assert_eq!(open(&sealed), Ok(("", Content::Gossip(&bytes))));
        prop_assert_eq!(open(&bytes), Err(Malformed));
    }

    /// Behind a right checksum anything may stand.
    #[test]
    fn any_content_is_read_or_refused(
        kind in 0_u8..20,
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut message = seal("", &Content::Gossip(&bytes)).to_vec();
        message[KIND_AT] = kind;
        let checksum = XxHash64::oneshot(0, &message[KIND_AT..]).to_le_bytes();
        message[CHECKSUM_AT..KIND_AT].copy_from_slice(&checksum);
        drop(open(&message));
    }
}
