//! Turns parts that other agents pass on into requests of a receiver's shards.
//!
//! # Failure
//! - A part that was cut by another view than holds here is answered 409: whoever sent it knows a newer one soon, or
//!   this agent does.
//! - A receiver that does not share answers 409 too.
//!
//! # Limits
//! - As many parts wait for a shard as connections may (`spread`); their bytes are in flight like those of
//!   requests.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use tokio::sync::oneshot;

use super::Part;
use crate::admit::Held;
use crate::answer::Answer;
use crate::connection::Connection;
use crate::http::{Receiver, append, until_durable};
use crate::negotiate::Encoding;
use crate::spread::Spread;

/// A part on its way to a shard.
#[derive(Debug)]
pub(crate) struct Passed {
    part: Part,
    /// Dropped: it was cut off.
    answer: oneshot::Sender<Response<Full<Bytes>>>,
}

/// Where parts for a receiver come in.
#[derive(Clone, Debug)]
pub struct Inlet {
    spread: Spread,
    next: Arc<AtomicUsize>,
    body_bytes_max: usize,
}

/// Too many parts wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

impl Inlet {
    pub(crate) fn new(spread: Spread, body_bytes_max: usize) -> Self {
        Self {
            spread,
            next: Arc::default(),
            body_bytes_max,
        }
    }

    /// Most bytes of a part, as it comes.
    #[must_use]
    pub const fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Has a part stored: what to answer once it is durable. None: it was cut off, and may be stored or not.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn take(&self, part: Part) -> Result<Option<Response<Full<Bytes>>>, NoRoom> {
        let (answer, answered) = oneshot::channel();
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let passed = Passed { part, answer };
        if !self.spread.pass(at, passed) {
            return Err(NoRoom);
        }
        Ok(answered.await.ok())
    }
}

/// Stores a part and answers.
pub(crate) async fn take_passed(receiver: Rc<Receiver>, inside: Rc<Connection>, passed: Passed) {
    let Passed { part, answer } = passed;
    let message = part.message;
    let done = match store(&receiver, &inside, part).await {
        Ok(done) => done,
        Err(done) => done.for_message(message),
    };
    receiver.counters().passed_in();
    // Fails when who asked does not wait any more.
    drop(answer.send(done.into_response()));
}

async fn store(receiver: &Receiver, inside: &Connection, part: Part) -> Result<Answer, Answer> {
    let held = Held::default();
    let mut permit = receiver.stats.bytes.permit(&held);
    permit.take(part.body.len()).map_err(Answer::shed)?;
    let settings = receiver.settings();
    let Some(sharing) = &settings.options.sharing else {
        return Err(Answer::other_view());
    };
    let mut positions = inside.positions.take();
    let (answer, stores) = {
        let view = sharing.view();
        if view.number != part.view || view.peers.is_none() {
            return Err(Answer::other_view());
        }
        let sent = (part.message, Encoding::Snappy, &*part.body, &part.headers);
        append(receiver, inside, &mut permit, sent, &mut positions)?
    };
    drop(part);
    until_durable(receiver, &stores, &positions).await?;
    inside.positions.replace(positions);
    Ok(answer)
}
