//! Turns `forward_to` lists into every way from a receiver to the logs it ends in.
//!
//! # Limits
//! - [`PATHS_MAX`] ways of a receiver: components that forward to each other twice double them.
//! - [`STAGES_MAX`] components in a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use ingest::{Path, STAGES_MAX, Stage};

/// Most ways from a receiver to writers.
pub(crate) const PATHS_MAX: usize = 64;

/// What is between receivers and logs.
#[derive(Default, Debug)]
pub(crate) struct Flow<'a> {
    /// Place of a writer's log in the list of stores, by the writer's id.
    pub(crate) stores: BTreeMap<&'a str, usize>,
    /// What stands between, with whom it feeds.
    pub(crate) stages: BTreeMap<&'a str, (Arc<Stage>, &'a [String])>,
}

impl Flow<'_> {
    /// The ways that a list opens, in its order.
    ///
    /// # Errors
    /// There are too many, they are too long, or one leads to what does not run: what is acknowledged would
    /// not get there.
    pub(crate) fn paths(&self, forward_to: &[String]) -> Result<Vec<Path>, String> {
        let mut paths = Vec::new();
        self.follow(forward_to, &mut Vec::new(), &mut paths)?;
        Ok(paths)
    }

    fn follow(
        &self,
        forward_to: &[String],
        stages: &mut Vec<Arc<Stage>>,
        paths: &mut Vec<Path>,
    ) -> Result<(), String> {
        for id in forward_to {
            if let Some(store) = self.stores.get(id.as_str()) {
                paths.push(Path {
                    store: *store,
                    stages: stages.clone(),
                });
            } else if let Some((stage, next)) = self.stages.get(id.as_str()) {
                if stages.len() == STAGES_MAX {
                    return Err(format!(
                        "leads through more than {STAGES_MAX} components in a row"
                    ));
                }
                stages.push(stage.clone());
                self.follow(next, stages, paths)?;
                stages.pop();
            } else {
                return Err(format!("leads to {id}, which does not run"));
            }
            if paths.len() > PATHS_MAX {
                return Err(format!("leads to more than {PATHS_MAX} writers"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stage(name: &str) -> Arc<Stage> {
        Arc::new(Stage::new(name, Vec::new(), 1, Duration::ZERO))
    }

    fn ids(list: &[&str]) -> Vec<String> {
        list.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn what_stands_between_is_on_the_way_in_order() {
        let (a, b) = (ids(&["b", "v"]), ids(&["w"]));
        let flow = Flow {
            stores: BTreeMap::from([("v", 0), ("w", 1)]),
            stages: BTreeMap::from([("a", (stage("a"), &*a)), ("b", (stage("b"), &*b))]),
        };
        let paths = flow.paths(&ids(&["a", "w"])).unwrap();
        let ways: Vec<(usize, Vec<&str>)> = paths
            .iter()
            .map(|path| (path.store, path.stages.iter().map(|s| s.name()).collect()))
            .collect();
        assert_eq!(ways, [(1, vec!["a", "b"]), (0, vec!["a"]), (1, vec![])]);
        let missing = flow.paths(&ids(&["w", "gone"])).unwrap_err();
        assert_eq!(missing, "leads to gone, which does not run");
    }

    #[test]
    fn ways_that_double_and_double_again_are_refused() {
        let names: Vec<String> = (0..8).map(|at| format!("r{at}")).collect();
        let next: Vec<Vec<String>> = (0..8)
            .map(|at| match at {
                0 => ids(&["w", "w"]),
                at => vec![names[at - 1].clone(); 2],
            })
            .collect();
        let mut flow = Flow {
            stores: BTreeMap::from([("w", 0)]),
            ..Flow::default()
        };
        for (name, next) in names.iter().zip(&next) {
            flow.stages.insert(name, (stage(name), next));
        }
        let refused = flow.paths(&ids(&["r7"])).unwrap_err();
        assert_eq!(refused, "leads to more than 64 writers");
    }

    #[test]
    fn a_row_has_an_end() {
        let names: Vec<String> = (0..20).map(|at| format!("r{at}")).collect();
        let next: Vec<Vec<String>> = (0..20).map(|at| ids(&[&format!("r{}", at + 1)])).collect();
        let mut flow = Flow::default();
        for (name, next) in names.iter().zip(&next) {
            flow.stages.insert(name, (stage(name), next));
        }
        let refused = flow.paths(&ids(&["r0"])).unwrap_err();
        assert_eq!(refused, "leads through more than 16 components in a row");
    }
}
