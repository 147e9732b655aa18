//! Turns messages into bytes, and bytes into messages that are known to be good.
//!
//! # On the wire
//! Numbers are little-endian, texts have their length in a byte before them.
//! ```text
//! +-----+---------+----------+------+--------------+---------+
//! | PSC | version | checksum | kind | cluster name | content |
//! | 3 B |   1 B   | 8 B      | 1 B  | 1 B + n      |         |
//! +-----+---------+----------+------+--------------+---------+
//!                  XXH64 of all behind it
//! ```
//! | kind | content |
//! |---|---|
//! | 0 gossip | a message of the protocol: header, number of updates, updates |
//! | 1 hello | node: lets itself be let in |
//! | 2 news | 1 B whether it is gone, node: what an agent says of itself |
//! | 16 known | node: who answers |
//! | 17 refused | 1 B reason, 8 B start and 4 B version of whom it is about |
//!
//! A node is name, address, start (8 B), version (4 B), state (1 B). A member is a node, incarnation (2 B), state (1 B).
//!
//! # Failure
//! - What does not end where it should, has another version or checksum, or holds what nobody could have
//!   written is malformed as a whole.
//!
//! # Limits
//! - [`MESSAGE_BYTES_MAX`], and names and addresses of 255 bytes.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use foca::{Codec, Header, Member, Message};
use twox_hash::XxHash64;

use crate::node::{Node, State};

/// The version of what is on the wire.
pub const VERSION: u8 = 1;
/// The longest message.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// What of it the protocol may fill: the rest is for the envelope.
pub(crate) const PACKET_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 512;

const MAGIC: [u8; 3] = *b"PSC";
const CHECKSUM_AT: usize = MAGIC.len() + 1;
const KIND_AT: usize = CHECKSUM_AT + 8;

const GOSSIP: u8 = 0;
const HELLO: u8 = 1;
const NEWS: u8 = 2;
const KNOWN: u8 = 16;
const REFUSED: u8 = 17;

/// Bytes that are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message")]
pub(crate) struct Malformed;

/// Why a message was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It cannot be understood.
    Malformed,
    /// It is of another cluster.
    OtherCluster,
    /// Another agent has the name.
    NameTaken {
        /// When that one began.
        started_ms: u64,
    },
    /// Another agent has the address.
    AddressTaken,
    /// Who is asked is alone because another agent has its name, or is about to leave.
    Alone,
    /// There is no room for more agents.
    Full,
    /// Something newer is known of the sender: of this age.
    Stale {
        /// The start that is known.
        started_ms: u64,
        /// The version that is known.
        version: u32,
    },
}

impl Refusal {
    /// The reason in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "the message cannot be understood",
            Self::OtherCluster => "the cluster has another name (--cluster.name)",
            Self::NameTaken { .. } => "another agent has the name (--cluster.node-name)",
            Self::AddressTaken => "another agent has the address (--cluster.advertise-address)",
            Self::Alone => "the agent that was asked is alone",
            Self::Full => "the cluster has as many agents as it can",
            Self::Stale { .. } => "something newer is known of the sender",
        }
    }
}

/// What is answered to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For the sender; may be empty.
    pub bytes: Bytes,
    /// Why the message was not taken.
    pub refusal: Option<Refusal>,
}

/// A message between agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content<'a> {
    Gossip(&'a [u8]),
    Hello(Node),
    News { node: Node, is_gone: bool },
    Known(Node),
    Refused(Refusal),
}

/// What `content` is in this cluster. Never longer than [`MESSAGE_BYTES_MAX`].
pub(crate) fn seal(cluster: &str, content: &Content<'_>) -> Bytes {
    let kind = match content {
        Content::Gossip(_) => GOSSIP,
        Content::Hello(_) => HELLO,
        Content::News { .. } => NEWS,
        Content::Known(_) => KNOWN,
        Content::Refused(_) => REFUSED,
    };
    let mut bytes = begun(kind, cluster);
    match content {
        Content::Gossip(packet) => bytes.put_slice(packet),
        Content::Hello(node) | Content::Known(node) => put_node(&mut bytes, node),
        Content::News { node, is_gone } => {
            bytes.put_u8(u8::from(*is_gone));
            put_node(&mut bytes, node);
        }
        Content::Refused(refusal) => put_refusal(&mut bytes, *refusal),
    }
    debug_assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    checked(bytes)
}

/// An envelope of any kind with any content.
#[cfg(any(test, fuzzing))]
pub(crate) fn sealed(kind: u8, cluster: &str, content: &[u8]) -> Bytes {
    let mut bytes = begun(kind, cluster);
    bytes.put_slice(content);
    checked(bytes)
}

fn begun(kind: u8, cluster: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.put_slice(&MAGIC);
    bytes.put_u8(VERSION);
    bytes.put_u64_le(0);
    bytes.put_u8(kind);
    put_text(&mut bytes, cluster);
    bytes
}

fn checked(mut bytes: Vec<u8>) -> Bytes {
    let (head, rest) = bytes.split_at_mut(KIND_AT);
    let checksum = XxHash64::oneshot(0, rest).to_le_bytes();
    if let Some(place) = head.get_mut(CHECKSUM_AT..) {
        place.copy_from_slice(&checksum);
    }
    bytes.into()
}

/// The name of the cluster a message is of, and what it says.
pub(crate) fn open(bytes: &[u8]) -> Result<(&str, Content<'_>), Malformed> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed);
    }
    let (head, rest) = bytes.split_at_checked(KIND_AT).ok_or(Malformed)?;
    let (version, checksum) = head.split_at_checked(CHECKSUM_AT).ok_or(Malformed)?;
    let is_ours = version == [MAGIC.as_slice(), &[VERSION]].concat();
    if !is_ours || checksum != XxHash64::oneshot(0, rest).to_le_bytes() {
        return Err(Malformed);
    }
    let mut rest = rest;
    let kind = byte(&mut rest)?;
    let length = usize::from(byte(&mut rest)?);
    let (cluster, mut rest) = rest.split_at_checked(length).ok_or(Malformed)?;
    let cluster = str::from_utf8(cluster).map_err(|_| Malformed)?;
    let content = match kind {
        GOSSIP => return Ok((cluster, Content::Gossip(rest))),
        HELLO => Content::Hello(node(&mut rest)?),
        NEWS => Content::News {
            is_gone: byte(&mut rest)? != 0,
            node: node(&mut rest)?,
        },
        KNOWN => Content::Known(node(&mut rest)?),
        REFUSED => Content::Refused(refusal(&mut rest)?),
        _ => return Err(Malformed),
    };
    match rest.is_empty() {
        true => Ok((cluster, content)),
        false => Err(Malformed),
    }
}

/// Whether a text is `host:port`, with nothing in the host that could be more than one.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = match inside {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(is_usual)
        }
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    is_host && is_port && port.parse::<u16>().is_ok_and(|port| port > 0) && text.len() <= 255
}

fn put_text(into: &mut impl BufMut, text: &str) {
    // Options and what is read are not longer.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    into.put_u8(length);
    into.put_slice(
        text.as_bytes()
            .get(..usize::from(length))
            .unwrap_or_default(),
    );
}

fn put_node(into: &mut impl BufMut, node: &Node) {
    put_text(into, &node.name);
    put_text(into, &node.address);
    into.put_u64_le(node.started_ms);
    into.put_u32_le(node.version);
    into.put_u8(match node.state {
        State::Viewer => 0,
        State::Participant => 1,
        State::Terminating => 2,
    });
}

fn put_refusal(into: &mut impl BufMut, refusal: Refusal) {
    let (reason, started_ms, version) = match refusal {
        Refusal::Malformed => (0, 0, 0),
        Refusal::OtherCluster => (1, 0, 0),
        Refusal::NameTaken { started_ms } => (2, started_ms, 0),
        Refusal::AddressTaken => (3, 0, 0),
        Refusal::Alone => (4, 0, 0),
        Refusal::Full => (5, 0, 0),
        Refusal::Stale {
            started_ms,
            version,
        } => (6, started_ms, version),
    };
    into.put_u8(reason);
    into.put_u64_le(started_ms);
    into.put_u32_le(version);
}

fn byte(from: &mut impl Buf) -> Result<u8, Malformed> {
    from.try_get_u8().map_err(|_| Malformed)
}

fn text(from: &mut impl Buf) -> Result<Arc<str>, Malformed> {
    let length = usize::from(byte(from)?);
    if from.remaining() < length {
        return Err(Malformed);
    }
    let bytes = from.copy_to_bytes(length);
    str::from_utf8(&bytes).map(Arc::from).map_err(|_| Malformed)
}

fn node(from: &mut impl Buf) -> Result<Node, Malformed> {
    let name = text(from)?;
    let address = text(from)?;
    if name.is_empty() || !is_address(&address) {
        return Err(Malformed);
    }
    Ok(Node {
        name,
        address,
        started_ms: from.try_get_u64_le().map_err(|_| Malformed)?,
        version: from.try_get_u32_le().map_err(|_| Malformed)?,
        state: match byte(from)? {
            0 => State::Viewer,
            1 => State::Participant,
            2 => State::Terminating,
            _ => return Err(Malformed),
        },
    })
}

fn refusal(from: &mut impl Buf) -> Result<Refusal, Malformed> {
    let reason = byte(from)?;
    let started_ms = from.try_get_u64_le().map_err(|_| Malformed)?;
    let version = from.try_get_u32_le().map_err(|_| Malformed)?;
    Ok(match reason {
        0 => Refusal::Malformed,
        1 => Refusal::OtherCluster,
        2 => Refusal::NameTaken { started_ms },
        3 => Refusal::AddressTaken,
        4 => Refusal::Alone,
        5 => Refusal::Full,
        6 => Refusal::Stale {
            started_ms,
            version,
        },
        _ => return Err(Malformed),
    })
}

/// Writes and reads what the protocol says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireCodec;

/// Writes all of it or nothing.
fn put_whole(mut into: impl BufMut, bytes: &[u8]) -> Result<(), Malformed> {
    if into.remaining_mut() < bytes.len() {
        return Err(Malformed);
    }
    into.put_slice(bytes);
    Ok(())
}

impl Codec<Node> for WireCodec {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Node>, into: impl BufMut) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(128);
        put_node(&mut bytes, &header.src);
        bytes.put_u16_le(header.src_incarnation);
        put_node(&mut bytes, &header.dst);
        put_message(&mut bytes, &header.message);
        put_whole(into, &bytes)
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Result<Header<Node>, Malformed> {
        let from = &mut from;
        Ok(Header {
            src: node(from)?,
            src_incarnation: from.try_get_u16_le().map_err(|_| Malformed)?,
            dst: node(from)?,
            message: message(from)?,
        })
    }

    fn encode_member(&mut self, member: &Member<Node>, into: impl BufMut) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(64);
        put_node(&mut bytes, member.id());
        bytes.put_u16_le(member.incarnation());
        bytes.put_u8(match member.state() {
            foca::State::Alive => 0,
            foca::State::Suspect => 1,
            foca::State::Down => 2,
        });
        put_whole(into, &bytes)
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Result<Member<Node>, Malformed> {
        let from = &mut from;
        let node = node(from)?;
        let incarnation = from.try_get_u16_le().map_err(|_| Malformed)?;
        let state = match byte(from)? {
            0 => foca::State::Alive,
            1 => foca::State::Suspect,
            2 => foca::State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(node, incarnation, state))
    }
}

fn put_message(into: &mut impl BufMut, message: &Message<Node>) {
    let (tag, node, number) = match message {
        Message::Ping(number) => (0, None, *number),
        Message::Ack(number) => (1, None, *number),
        Message::PingReq {
            target,
            probe_number,
        } => (2, Some(target), *probe_number),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (3, Some(origin), *probe_number),
        Message::IndirectAck {
            target,
            probe_number,
        } => (4, Some(target), *probe_number),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (5, Some(origin), *probe_number),
        Message::Announce => (6, None, 0),
        Message::Feed => (7, None, 0),
        Message::Gossip => (8, None, 0),
        Message::Broadcast => (9, None, 0),
        Message::TurnUndead => (10, None, 0),
    };
    into.put_u8(tag);
    into.put_u8(number);
    if let Some(node) = node {
        put_node(into, node);
    }
}

fn message(from: &mut impl Buf) -> Result<Message<Node>, Malformed> {
    let (tag, probe_number) = (byte(from)?, byte(from)?);
    Ok(match tag {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq {
            target: node(from)?,
            probe_number,
        },
        3 => Message::IndirectPing {
            origin: node(from)?,
            probe_number,
        },
        4 => Message::IndirectAck {
            target: node(from)?,
            probe_number,
        },
        5 => Message::ForwardedAck {
            origin: node(from)?,
            probe_number,
        },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(Malformed),
    })
}

/// What a message of the protocol says, looked at before the protocol sees it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) header: Header<Node>,
    pub(crate) updates: Vec<Member<Node>>,
}

/// Reads a message of the protocol to its end.
pub(crate) fn packet(bytes: &[u8]) -> Result<Packet, Malformed> {
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(Malformed);
    }
    let mut rest = bytes;
    let header = WireCodec.decode_header(&mut rest)?;
    let mut updates = Vec::new();
    let is_bare = matches!(
        header.message,
        Message::Announce | Message::TurnUndead | Message::Broadcast
    );
    if !is_bare && !rest.is_empty() {
        // As the protocol writes it.
        let count = rest.try_get_u16().map_err(|_| Malformed)?;
        for _ in 0..count {
            updates.push(WireCodec.decode_member(&mut rest)?);
        }
    }
    match rest.is_empty() {
        true => Ok(Packet { header, updates }),
        false => Err(Malformed),
    }
}

#[cfg(test)]
mod tests;
