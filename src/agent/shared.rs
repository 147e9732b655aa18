//! Turns what receivers feed that share their series with other agents into what is handed over to those.

use std::collections::BTreeMap;

use super::Agent;
use super::writer::Writer;
use crate::cluster::SharedLog;
use crate::component::Role;
use crate::graph;

impl Agent {
    /// What receivers feed that share their series.
    pub(super) fn tell_handover(&self, asked: &[graph::Asked<'_>]) {
        let Some(handover) = &self.ground.handover else {
            return;
        };
        let (flow, stores) = self.flow(asked);
        let mut logs = BTreeMap::new();
        for one in asked {
            let Role::Receiver(component) = one.role else {
                continue;
            };
            let Some(patience) = component.handover_timeout else {
                continue;
            };
            for path in flow.paths(&component.forward_to).unwrap_or_default() {
                let Some((id, store)) = stores.get(path.store) else {
                    continue;
                };
                let writer = self.writers.get(id).into_iter();
                for endpoint in writer.flat_map(Writer::positions) {
                    let name = format!("{id}/{}", endpoint.name());
                    let log = SharedLog {
                        store: store.clone(),
                        endpoint,
                        patience,
                    };
                    logs.insert(name, log);
                }
            }
        }
        handover.set(logs, self.shards.inlets());
    }
}
