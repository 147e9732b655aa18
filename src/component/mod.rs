//! Turns a configuration file into the list of what to run: writers, then receivers that feed them.
//!
//! The blocks of a file are the nodes of a graph; a reference from one to another is an edge. Nodes
//! are evaluated dependencies first, each seeing the exports of those before it.
//!
//! # Failure
//! Every unknown name, wrong type, missing attribute, reference into nothing and cycle is a
//! diagnostic with its place. All blocks are looked at, so that one run shows all of them.

mod described;
mod http_client;
mod http_service;
mod logging;
mod receive_http;
mod receive_limits;
mod receive_tenants;
mod relabel;
mod relabel_rule;
mod remote_write;
mod tls_server;

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Block, Capsule, CapsuleKind, Diagnostic, Diagnostics, File, Handle, Scope, Target};
use ingest::Path;

pub(crate) use described::Described;
pub(crate) use http_service::{HttpService, PathAuth};
pub(crate) use logging::{Logging, Logs};
pub(crate) use receive_http::ReceiveHttp;
pub(crate) use relabel::Relabel;
pub(crate) use remote_write::RemoteWrite;

/// Names of everything a file may contain, for the message about what it may not.
const KNOWN: [&str; 5] = [
    http_service::NAME,
    logging::NAME,
    receive_http::NAME,
    relabel::NAME,
    remote_write::NAME,
];
/// Those that are there once and have no label.
const UNLABELLED: [&str; 2] = [http_service::NAME, logging::NAME];

/// Most ways from a receiver to writers: components that forward to each other twice double them.
const PATHS_MAX: usize = 64;

/// What a `receiver` export stands for: every way from there to a writer.
#[derive(Clone, Debug)]
pub(crate) struct MetricsReceiver {
    /// Stores are indexes into [`Plan::writers`].
    pub(crate) paths: Vec<Path>,
}

impl CapsuleKind for MetricsReceiver {
    const KIND: &'static str = "MetricsReceiver";
}

/// The ways a `forward_to` list opens, in its order; `null` entries are left out.
pub(crate) fn paths_of(list: Vec<Handle<MetricsReceiver>>) -> Vec<Path> {
    list.into_iter()
        .filter_map(Handle::into_inner)
        .flat_map(|receiver| receiver.paths.clone())
        .collect()
}

/// What a configuration asks for.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// How to log.
    pub(crate) logging: Logging,
    /// Who may speak to the agent's own address.
    pub(crate) http: HttpService,
    /// One store each, with its endpoints.
    pub(crate) writers: Vec<RemoteWrite>,
    /// What stands in between.
    pub(crate) relabels: Vec<Relabel>,
    /// Where data comes in.
    pub(crate) receivers: Vec<ReceiveHttp>,
    /// Every block as it can be shown, in the order of the files.
    pub(crate) described: Vec<Described>,
    /// The files themselves: name and text.
    pub(crate) sources: Vec<(String, String)>,
}

/// Evaluates the blocks of all files of a configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn plan(files: &[File]) -> Result<Plan, Diagnostics> {
    let blocks: Vec<&Block> = files.iter().flat_map(|file| &file.blocks).collect();
    let nodes = nodes(&blocks)?;
    let order = evaluation_order(&blocks, &nodes)?;
    let mut plan = Plan::default();
    let mut scope = Scope::new().keep_arguments();
    let mut diagnostics = Diagnostics::new();
    for at in order {
        if let Err(found) = evaluate(blocks[at], &mut scope, &mut plan) {
            diagnostics.extend(found);
        }
    }
    if diagnostics.is_empty() {
        plan.described = described::describe(&blocks, &nodes, &scope);
        let text = |file: &File| (file.source.name().to_owned(), file.source.text().to_owned());
        plan.sources = files.iter().map(text).collect();
        Ok(plan)
    } else {
        Err(diagnostics)
    }
}

/// Checks names and labels; gives every block's id its number.
fn nodes(blocks: &[&Block]) -> Result<BTreeMap<String, usize>, Diagnostics> {
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    let mut diagnostics = Diagnostics::new();
    for (at, block) in blocks.iter().enumerate() {
        let name = block.name.name.as_str();
        let mut refuse = |message: String| {
            diagnostics.push(Diagnostic::error(&block.source, block.header, message));
        };
        if !KNOWN.contains(&name) {
            refuse(unknown(name));
            continue;
        }
        match (UNLABELLED.contains(&name), block.label()) {
            (true, Some(_)) => {
                refuse(format!("block {name:?} does not support specifying labels"));
            }
            (false, None) => refuse(format!("component {name:?} must have a label")),
            _ => {}
        }
        if let Some(first) = nodes.get(&block.id()) {
            let first = blocks[*first];
            let place = Diagnostic::error(&first.source, first.header, "").pos();
            let file = first.source.name();
            refuse(format!(
                "block {} already declared at {file}:{place}",
                block.id()
            ));
            continue;
        }
        nodes.insert(block.id(), at);
    }
    if diagnostics.is_empty() {
        Ok(nodes)
    } else {
        Err(diagnostics)
    }
}

fn unknown(name: &str) -> String {
    let known = KNOWN.join(", ");
    format!("cannot find the definition of component name {name:?}; there are {known}")
}

/// Block numbers, dependencies first and otherwise as written.
fn evaluation_order(
    blocks: &[&Block],
    nodes: &BTreeMap<String, usize>,
) -> Result<Vec<usize>, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let scope = Scope::new();
    let mut waits_for: Vec<Vec<usize>> = Vec::new();
    for block in blocks {
        let mut needs = Vec::new();
        for reference in config::references(block) {
            match reference.resolve(&scope, |id| nodes.contains_key(id)) {
                Ok(Target::Node(id)) => needs.extend(nodes.get(&id)),
                Ok(Target::Scope) => {}
                Err(diagnostic) => diagnostics.push(diagnostic),
            }
        }
        waits_for.push(needs);
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mut order: Vec<usize> = Vec::new();
    while order.len() < blocks.len() {
        let ready = (0..blocks.len())
            .find(|at| !order.contains(at) && waits_for[*at].iter().all(|n| order.contains(n)));
        let Some(ready) = ready else {
            return Err(cycle(blocks, &order).into());
        };
        order.push(ready);
    }
    Ok(order)
}

fn cycle(blocks: &[&Block], evaluated: &[usize]) -> Diagnostic {
    let left: Vec<&Block> = (0..blocks.len())
        .filter(|at| !evaluated.contains(at))
        .map(|at| blocks[at])
        .collect();
    let names: Vec<String> = left.iter().map(|block| block.id()).collect();
    let message = format!("cycle detected: {}", names.join(", "));
    Diagnostic::error(&left[0].source, left[0].header, message)
}

fn evaluate(block: &Block, scope: &mut Scope, plan: &mut Plan) -> Result<(), Diagnostics> {
    match block.name.name.as_str() {
        logging::NAME => plan.logging = logging::read(block, scope)?,
        http_service::NAME => plan.http = http_service::read(block, scope)?,
        remote_write::NAME => {
            let writer = plan.writers.len();
            // Exported even if it fails: what refers to it is not at fault.
            export(block, scope, vec![Path::plain(writer)]);
            plan.writers.push(remote_write::read(block, scope)?);
        }
        relabel::NAME => {
            let relabel = relabel::read(block, scope).inspect_err(|_| {
                // As above.
                export(block, scope, Vec::new());
            })?;
            export(block, scope, relabel.paths.clone());
            scope.set_path(&format!("{}.rules", block.id()), relabel.rules.clone());
            plan.relabels.push(relabel);
        }
        receive_http::NAME => plan.receivers.push(receive_http::read(block, scope)?),
        name => {
            return Err(Diagnostic::error(&block.source, block.header, unknown(name)).into());
        }
    }
    Ok(())
}

fn export(block: &Block, scope: &mut Scope, paths: Vec<Path>) {
    let receiver = Capsule::new(MetricsReceiver::KIND, Arc::new(MetricsReceiver { paths }));
    scope.set_path(&format!("{}.receiver", block.id()), receiver);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Plan, String> {
        let file = config::parse("a.penstock", text).map_err(|e| e.to_string())?;
        plan(&[file]).map_err(|e| e.to_string())
    }

    fn refused(text: &str) -> String {
        load(text).unwrap_err()
    }

    #[test]
    fn a_receiver_may_stand_before_the_writer_it_feeds() {
        let plan = load(
            "prometheus.receive_http \"in\" {\n\
             forward_to = [prometheus.remote_write.b.receiver, prometheus.remote_write.a.receiver]\n\
             http {\n listen_address = \"127.0.0.1\"\n listen_port = 9009\n}\n\
             }\n\
             prometheus.remote_write \"a\" {}\n\
             prometheus.remote_write \"b\" {}\n",
        )
        .unwrap();
        let stores: Vec<_> = plan.receivers[0]
            .paths
            .iter()
            .map(|path| path.store)
            .collect();
        assert_eq!(stores, [1, 0]);
        assert_eq!(plan.receivers[0].address.to_string(), "127.0.0.1:9009");
        assert_eq!(plan.writers[0].id, "prometheus.remote_write.a");
    }

    #[test]
    fn the_configuration_of_the_readme_loads() {
        let readme = include_str!("../../README.md");
        let block = readme.split("```alloy\n").nth(1).unwrap();
        let plan = load(block.split("```").next().unwrap()).unwrap();
        assert_eq!(
            (plan.receivers.len(), plan.writers[0].endpoints.len()),
            (1, 1)
        );
    }

    #[test]
    fn what_stands_between_is_on_the_way_in_order() {
        let plan = load(
            "prometheus.receive_http \"in\" {\n\
             forward_to = [prometheus.relabel.a.receiver, prometheus.remote_write.w.receiver]\n}\n\
             prometheus.relabel \"a\" {\n\
             forward_to = [prometheus.relabel.b.receiver, prometheus.remote_write.v.receiver]\n}\n\
             prometheus.relabel \"b\" {\nforward_to = [prometheus.remote_write.w.receiver]\n}\n\
             prometheus.remote_write \"v\" {}\nprometheus.remote_write \"w\" {}\n",
        )
        .unwrap();
        let ways: Vec<(usize, Vec<&str>)> = plan.receivers[0]
            .paths
            .iter()
            .map(|path| (path.store, path.stages.iter().map(|s| s.name()).collect()))
            .collect();
        let (a, b) = ("prometheus.relabel.a", "prometheus.relabel.b");
        assert_eq!(ways, [(1, vec![a, b]), (0, vec![a]), (1, vec![])]);
    }

    #[test]
    fn ways_that_double_and_double_again_are_refused() {
        let mut text = String::from("prometheus.remote_write \"w\" {}\n");
        let mut next = "prometheus.remote_write.w.receiver".to_owned();
        for at in 0..8 {
            text +=
                &format!("prometheus.relabel \"r{at}\" {{\nforward_to = [{next}, {next}]\n}}\n");
            next = format!("prometheus.relabel.r{at}.receiver");
        }
        let message = refused(&text);
        assert!(
            message.contains("leads to more than 64 writers"),
            "{message}"
        );
    }

    #[test]
    fn an_unknown_component_is_named_with_what_there_is() {
        assert_eq!(
            refused("prometheus.scrap \"x\" {}\n"),
            "a.penstock:1:1: cannot find the definition of component name \"prometheus.scrap\"; \
             there are http, logging, prometheus.receive_http, prometheus.relabel, \
             prometheus.remote_write"
        );
    }

    #[test]
    fn a_reference_into_nothing_has_its_place() {
        assert_eq!(
            refused(
                "prometheus.receive_http \"in\" {\n  forward_to = [prometheus.nope.x.receiver]\n}\n"
            ),
            "a.penstock:2:17: component \"prometheus.nope.x.receiver\" does not exist or is out of scope"
        );
    }

    #[test]
    fn labels_are_required_and_ids_unique() {
        assert_eq!(
            refused("prometheus.remote_write {}\n"),
            "a.penstock:1:1: component \"prometheus.remote_write\" must have a label"
        );
        assert_eq!(
            refused("prometheus.remote_write \"a\" {}\nprometheus.remote_write \"a\" {}\n"),
            "a.penstock:2:1: block prometheus.remote_write.a already declared at a.penstock:1:1"
        );
    }

    #[test]
    fn a_cycle_is_named() {
        let text = "prometheus.remote_write \"a\" {\n  external_labels = {x = prometheus.remote_write.b.receiver}\n}\n\
                    prometheus.remote_write \"b\" {\n  external_labels = {x = prometheus.remote_write.a.receiver}\n}\n";
        assert_eq!(
            refused(text),
            "a.penstock:1:1: cycle detected: prometheus.remote_write.a, prometheus.remote_write.b"
        );
    }

    #[test]
    fn a_receiver_of_the_wrong_kind_is_refused() {
        let text = "prometheus.receive_http \"in\" {\n  forward_to = [\"nope\"]\n}\n";
        assert_eq!(
            refused(text),
            "a.penstock:2:17: \"nope\" should be capsule, got string"
        );
    }
}
