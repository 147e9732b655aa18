//! Turns files, signals and what is seen outside into a graph, and the graph into what runs.
//!
//! # Order of a start
//! Files, graph, logging, the agent's own address, logs, receivers, endpoints, ready. The own address answers
//! from the third step on, with 503 to `/-/ready`.
//!
//! # Failure
//! - At the start every mistake, in a file or in what it asks for, is an error: nothing goes on.
//! - Later, files that cannot be read or do not hang together change nothing; a component that cannot be
//!   evaluated or started stays as it was, the others change.
//!
//! # Threads
//! - The graph and the agent live on the thread that calls [`Controller::run`]. What others see of them is
//!   the [`View`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::Diagnostics;
use tokio::sync::{mpsc, oneshot};

use super::{Agent, Files, Ground, LoadState, Problems, View};
use crate::component::{HttpService, Logging, Role};
use crate::graph::{Graph, Host, Saw, Seen};
use crate::server::Server;
use crate::telemetry::logs;
use crate::telemetry::metrics::Sources;

/// What the controller is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// Read the files again; the answer says what is wrong.
    Reload(Option<oneshot::Sender<Result<(), String>>>),
    /// End; what is sent or dropped later asks for hurry.
    Stop {
        deadline: Duration,
        hurried: oneshot::Receiver<()>,
    },
}

/// The graph, and what runs because of it.
#[derive(Debug)]
pub(crate) struct Controller {
    files: Files,
    graph: Graph,
    agent: Agent,
    view: Arc<View>,
    server: Server,
    logging: Logging,
    http: HttpService,
}

/// What a configuration is made of before anything runs.
#[derive(Debug)]
pub(crate) struct Loaded {
    files: Files,
    graph: Graph,
    state: LoadState,
}

impl Loaded {
    /// Reads and evaluates a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn new(files: Files, host: Host) -> anyhow::Result<Self> {
        let mut graph = Graph::new(host);
        let mut state = LoadState::of(&files.path);
        let read = files.read(&mut state)?;
        let wrong = graph.load(read, files.dir())?;
        if wrong.has_errors() {
            return Err(wrong.into());
        }
        state.loaded();
        Ok(Self {
            files,
            graph,
            state,
        })
    }

    /// How to log.
    pub(crate) fn logging(&self) -> Logging {
        logging(&self.graph)
    }

    /// Where receivers listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let asked = self.graph.asked().into_iter();
        let addresses = asked.filter_map(|one| match one.role {
            Role::Receiver(receiver) => Some(receiver.address),
            _ => None,
        });
        addresses.collect()
    }

    /// Who may speak to the agent's own address.
    pub(crate) fn http(&self) -> HttpService {
        http(&self.graph)
    }
}

impl Controller {
    /// Starts everything that is asked for.
    ///
    /// # Errors
    /// The first thing that cannot be done.
    pub(crate) fn start(
        loaded: Loaded,
        ground: Ground,
        view: Arc<View>,
        server: Server,
    ) -> anyhow::Result<Self> {
        let (logging, http) = (loaded.logging(), loaded.http());
        let agent = Agent::start(ground)?;
        let mut controller = Self {
            files: loaded.files,
            graph: loaded.graph,
            agent,
            view,
            server,
            logging,
            http,
        };
        let mut problems = controller.agent.apply(&controller.graph.asked());
        if !problems.is_empty() {
            let (_, first) = problems.swap_remove(0);
            controller
                .agent
                .stop(Duration::ZERO, oneshot::channel().1)?;
            return Err(first);
        }
        controller.view.runs(controller.sources());
        controller.view.show(&controller.graph, &problems);
        controller.view.loaded(loaded.state);
        Ok(controller)
    }

    /// Does what it is told until it is told to stop.
    ///
    /// # Errors
    /// Something did not end in order.
    pub(crate) fn run(
        mut self,
        events: &mut mpsc::Receiver<Event>,
        seen: &mut mpsc::Receiver<Seen>,
        runtime: &tokio::runtime::Handle,
    ) -> anyhow::Result<()> {
        let mut owners = self.agent.ownership().changed();
        if self.agent.ownership().is_on() {
            // What the start has seen may be old by now.
            owners.mark_changed();
        }
        loop {
            let next = runtime.block_on(async {
                tokio::select! {
                    event = events.recv() => Next::Event(event),
                    Some(seen) = seen.recv() => Next::Seen(seen),
                    // An error means that there is no cluster.
                    Ok(()) = owners.changed() => Next::Owners,
                }
            });
            match next {
                Next::Event(Some(Event::Reload(answer))) => {
                    let went = self.reload();
                    if let Err(problem) = &went {
                        tracing::error!(%problem, "reload failed");
                    } else {
                        tracing::info!("config reloaded");
                    }
                    if let Some(answer) = answer {
                        // Fails when nobody waits for it any more.
                        drop(answer.send(went));
                    }
                }
                Next::Event(Some(Event::Stop { deadline, hurried })) => {
                    if let Some(clustering) = self.view.clustering() {
                        // Before anything is closed here, others take over.
                        runtime.block_on(clustering.terminate());
                    }
                    if self.agent.turn_away() {
                        self.server.close();
                    }
                    return self.agent.stop(deadline, hurried);
                }
                Next::Event(None) => {
                    let (_hurry, hurried) = oneshot::channel();
                    return self.agent.stop(Duration::ZERO, hurried);
                }
                Next::Seen(seen) => self.seen(seen),
                Next::Owners => {
                    tracing::info!("the cluster has changed");
                    let problems = self.apply();
                    tell(problems);
                }
            }
        }
    }

    /// Everything that has numbers.
    fn sources(&self) -> Sources {
        Sources {
            discoveries: self.graph.discoveries(),
            ..self.agent.sources()
        }
    }

    /// Reads the files again.
    fn reload(&mut self) -> Result<(), String> {
        let mut state = LoadState::of(&self.files.path);
        let went = self.reload_into(&mut state);
        match &went {
            Ok(()) => state.loaded(),
            Err(problem) => state.failed(problem, &self.view),
        }
        self.view.loaded(state);
        went
    }

    fn reload_into(&mut self, state: &mut LoadState) -> Result<(), String> {
        let files = self.files.read(state).map_err(|error| text_of(&error))?;
        let wrong = self.graph.load(files, self.files.dir());
        let wrong = wrong.map_err(|found| lines(&found))?;
        let problems = self.apply();
        let mut text = lines(&wrong);
        for (id, error) in problems {
            text.push_str(&format!("{id}: {}\n", text_of(&error)));
        }
        if text.is_empty() { Ok(()) } else { Err(text) }
    }

    fn seen(&mut self, seen: Seen) {
        tracing::debug!(
            component = seen.id,
            is_there = !matches!(seen.what, Saw::Files(Err(_))),
            "changed outside"
        );
        let wrong = self.graph.seen(seen);
        for diagnostic in &wrong {
            tracing::error!(%diagnostic, "a component cannot be evaluated");
        }
        let problems = self.apply();
        tell(problems);
    }

    /// Makes what runs be what the graph asks for.
    fn apply(&mut self) -> Problems {
        let logging = logging(&self.graph);
        if logging != self.logging {
            self.logging = logging;
            logs::change(logging);
        }
        let mut problems = Problems::new();
        let http = http(&self.graph);
        if http != self.http {
            match self.server.reconfigure(&http) {
                Ok(()) => self.http = http,
                Err(error) => problems.push(("http".to_owned(), error)),
            }
        }
        problems.extend(self.agent.apply(&self.graph.asked()));
        self.view.runs(self.sources());
        self.view.show(&self.graph, &problems);
        problems
    }
}

fn tell(problems: Problems) {
    for (component, error) in problems {
        tracing::error!(component, error = text_of(&error), "cannot be changed");
    }
}

enum Next {
    Event(Option<Event>),
    Seen(Seen),
    /// Others of the cluster came or went.
    Owners,
}

fn logging(graph: &Graph) -> Logging {
    let asked = graph.asked();
    let found = asked.iter().find_map(|one| match one.role {
        Role::Logging(logging) => Some(*logging),
        _ => None,
    });
    found.unwrap_or_default()
}

fn http(graph: &Graph) -> HttpService {
    let asked = graph.asked();
    let found = asked.iter().find_map(|one| match one.role {
        Role::Http(http) => Some((**http).clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Every diagnostic, one a line.
fn lines(found: &Diagnostics) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

fn text_of(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Diagnostics>() {
        Some(found) => lines(found),
        None => logs::in_one_line(error),
    }
}
