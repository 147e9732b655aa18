//! Turns a request into what is passed on and what is kept, and the answers to all of that into one.
//!
//! # Limits
//! - The bytes in flight are those of any request; the parts are that much again for as long as they are passed on.

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Response, StatusCode};

use super::{Part, Passing, Peers, Sharing, Splitter, View};
use crate::admit::BytesPermit;
use crate::answer::Answer;
use crate::append::KEPT_BYTES_MAX;
use crate::connection::Connection;
use crate::decode::Written;
use crate::decode::snappy::compress;
use crate::http::{Buffer, Receiver, Sent, append, until_durable};
use crate::negotiate::{Encoding, Message};

/// What became of the parts that were passed on, as far as the sender is told.
#[derive(Default)]
struct Told {
    written: Written,
    /// What the owners did not allow, in their words.
    refused: Vec<String>,
}

/// Passes on what others own, stores the rest, and answers once all of it is durable.
pub(crate) async fn take(
    (receiver, connection): (&Receiver, &Connection),
    sharing: &Sharing,
    permit: &mut BytesPermit<'_>,
    (message, encoding, compressed, headers): Sent<'_>,
) -> Result<Answer, Answer> {
    let View { number, peers } = sharing.view().clone();
    let Some(peers) = peers else {
        return Err(Answer::no_view());
    };
    let cut = Cut {
        receiver,
        peers: &*peers,
        view: number,
        headers,
    };
    let (kept, passing) = cut.split(permit, (message, encoding, compressed))?;
    let mut told = Told::default();
    for passing in passing {
        let answer = passing.await;
        told.take(answer).inspect_err(|_| {
            receiver.counters().passing_failed();
        })?;
    }
    let Some(kept) = kept else {
        return Ok(told.answer(message, Answer::stored(), Written::default()));
    };
    let mut positions = connection.positions.take();
    let (answer, stores) = {
        let view = sharing.view();
        if view.number != number || view.peers.is_none() {
            return Err(Answer::no_view());
        }
        let sent = (message, Encoding::Plain, &*kept.bytes, headers);
        append(receiver, connection, permit, sent, &mut positions)?
    };
    drop(kept);
    until_durable(receiver, &stores, &positions).await?;
    connection.positions.replace(positions);
    let written = answer.written();
    Ok(told.answer(message, answer, written))
}

/// How a request is cut.
struct Cut<'r> {
    receiver: &'r Receiver,
    peers: &'r dyn Peers,
    view: u64,
    headers: &'r HeaderMap,
}

impl<'r> Cut<'r> {
    /// What stays here, and what is on its way to the others.
    fn split(
        &self,
        permit: &mut BytesPermit<'_>,
        (message, encoding, compressed): (Message, Encoding, &[u8]),
    ) -> Result<(Option<Buffer<'r>>, Vec<Passing>), Answer> {
        let settings = self.receiver.settings();
        let options = &settings.options;
        let limit = options.body_bytes_max;
        let refuse = |refused| Answer::compression(encoding, refused, limit);
        let claimed = encoding.claimed_length(compressed, limit).map_err(refuse)?;
        permit.take(claimed).map_err(Answer::shed)?;
        let counters = self.receiver.counters();
        counters.received(compressed.len(), claimed);
        let mut cutting = self.receiver.worker.cutting.borrow_mut();
        let (decompressed, splitter) = &mut *cutting;
        let body = encoding.decompress(compressed, claimed, decompressed);
        let body = body.map_err(refuse)?;
        let owner = |key| self.peers.owner(key);
        let cut = splitter.split((message, body), self.peers.count(), owner);
        cut.map_err(Answer::malformed)?;
        let (series, series_kept) = splitter.series();
        if options.series_max > 0 && series > options.series_max {
            return Err(Answer::too_many_series(series, options.series_max));
        }
        counters.passed_on(series - series_kept);
        let passing = self.pass_on(splitter, message, &options.name);
        // Of a 2.0 request without a series that stays, the symbols do.
        let is_kept = match message {
            Message::V1 => !splitter.kept().is_empty(),
            Message::V2 => series_kept > 0,
        };
        let kept = (is_kept || passing.is_empty()).then(|| {
            let mut kept = Buffer::new(&self.receiver.worker);
            splitter.take_kept(&mut kept.bytes);
            kept
        });
        splitter.shrink(KEPT_BYTES_MAX);
        decompressed.clear();
        decompressed.shrink_to(KEPT_BYTES_MAX);
        Ok((kept, passing))
    }

    fn pass_on(&self, splitter: &Splitter, message: Message, receiver: &str) -> Vec<Passing> {
        let settings = self.receiver.settings();
        let tenants = settings.options.tenants.as_ref();
        let mut headers = HeaderMap::new();
        if let Some(name) = tenants.and_then(|all| HeaderName::try_from(&all.header).ok())
            && let Some(value) = self.headers.get(&name)
        {
            headers.insert(name, value.clone());
        }
        let parts = splitter.parts().map(|(owner, part)| {
            let part = Part {
                receiver: receiver.into(),
                view: self.view,
                message,
                body: compress(part).into(),
                headers: headers.clone(),
            };
            self.peers.pass(owner, part)
        });
        parts.collect()
    }
}

impl Told {
    /// Looks at the answer of an owner.
    ///
    /// # Errors
    /// The sender has to be told something else than that its request is stored.
    fn take(&mut self, answer: Result<Response<Bytes>, String>) -> Result<(), Answer> {
        let answer = answer.map_err(|why| Answer::not_passed(&why))?;
        let text = || String::from_utf8_lossy(answer.body()).trim().to_owned();
        match answer.status() {
            status if status.is_success() => {}
            // Which says that everything else is stored, or that nothing of this request ever can be.
            StatusCode::BAD_REQUEST => self.refused.push(text()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(Answer::passed_back(answer.status(), text()));
            }
            status => {
                return Err(Answer::not_passed(&format!(
                    "it answers {status}: {}",
                    text()
                )));
            }
        }
        self.written.add(Answer::written_in(answer.headers()));
        Ok(())
    }

    /// What the sender is told, where what was kept is answered so.
    fn answer(self, message: Message, kept: Answer, written: Written) -> Answer {
        let mut sum = self.written;
        sum.add(written);
        let mut answer = kept;
        for refused in self.refused {
            answer = answer.and_refused(&refused);
        }
        match message {
            Message::V1 => answer,
            Message::V2 => answer.with_written(sum),
        }
    }
}
