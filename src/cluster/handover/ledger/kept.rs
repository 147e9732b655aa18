//! Turns what a ledger holds back into text, and that into what the next process holds back.
//!
//! An agent that is killed while it holds something back, and forgets that, ships it before the others have
//! shipped what they had of those series: the others' samples come late.
//!
//! # Layout
//! JSON: the views from the first on for which something is held, as they are in the ledger. Who took part in them
//! is left out, as an agent that was away is new for all of them.

use serde_json::{Value, json};

use super::{Arc, BTreeMap, Barrier, Duration, Ledger, Lives, Log, Position, Seen, Wait};

const VERSION: u64 = 1;

impl<L: Log> Ledger<L> {
    /// What the next process has to know; none: nothing is held.
    pub(in super::super) fn to_text(&self) -> Option<String> {
        self.views.iter().flat_map(Seen::waiting).next()?;
        let views: Vec<Value> = self.views.iter().map(written).collect();
        Some(json!({"version": VERSION, "views": views}).to_string())
    }

    /// A ledger that holds what the one that was written held; none: this is no such text.
    pub(in super::super) fn from_text(own: Arc<str>, text: &str, now: Duration) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        if value.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let views = value.get("views")?.as_array()?.iter();
        let mut ledger = Self::new(own);
        ledger.views = views.map(|view| read(view, now)).collect::<Option<_>>()?;
        Some(ledger)
    }
}

fn written(seen: &Seen) -> Value {
    let logs = seen.barriers.iter().map(|(name, barrier)| {
        let waits = barrier.waits.iter();
        let waits = waits.map(|(name, wait)| (name.to_string(), json!(wait.life)));
        let waits = waits.collect::<serde_json::Map<_, _>>();
        (
            name.clone(),
            json!({"at": barrier.at.get(), "waitsFor": waits}),
        )
    });
    let waits_for: Vec<&str> = seen.waits_for.iter().map(|name| &**name).collect();
    json!({
        "view": seen.number,
        "life": seen.life,
        "isNew": seen.is_new,
        "waitsFor": waits_for,
        "logs": logs.collect::<serde_json::Map<_, _>>(),
    })
}

fn read(view: &Value, now: Duration) -> Option<Seen> {
    let logs = view.get("logs")?.as_object()?.iter();
    let barriers = logs.map(|(name, log)| {
        let waits = log.get("waitsFor")?.as_object()?.iter();
        let waits = waits.map(|(name, life)| {
            let life = life.as_u64();
            (Arc::from(name.as_str()), Wait::new(life, now))
        });
        let barrier = Barrier {
            at: Position::new(log.get("at")?.as_u64()?),
            waits: waits.collect(),
        };
        Some((name.clone(), barrier))
    });
    let waits_for = view.get("waitsFor")?.as_array()?.iter();
    let waits_for = waits_for.map(|name| Some(Arc::from(name.as_str()?)));
    Some(Seen {
        number: view.get("view")?.as_u64()?,
        life: view.get("life")?.as_u64(),
        participants: Lives::new(),
        is_new: view.get("isNew")?.as_bool()?,
        waits_for: waits_for.collect::<Option<_>>()?,
        barriers: barriers.collect::<Option<BTreeMap<_, _>>>()?,
    })
}
