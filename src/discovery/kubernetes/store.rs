//! Turns objects that come, change and go into the targets of those of one kind.
//!
//! Targets are made for one object at a time: for one that changed, and for those that something was looked up
//! for which changed. Which these are is noted when targets are made.
//!
//! # Invariants
//! - Whatever is not noted as changed has the targets that its object and those it needs stand for now.
//! - `needed` holds exactly what the groups need.
//!
//! # Limits
//! - [`OBJECTS_MAX`] objects, of all kinds: further ones are not taken, and told of.
//! - [`TARGETS_MAX`] targets: with more no further targets are made until there are fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::TARGETS_MAX;
use super::super::refresh::{Found, Group, too_many};
use super::objects::{Kind, Object};
use super::targets::{self, Need};
use super::{AttachMetadata, Role};

/// Far more than clusters have of nodes, or this can make targets of.
pub(super) const OBJECTS_MAX: usize = 200_000;

/// The key of an object: its name, behind that of its namespace where it is in one.
type Key = Box<str>;

/// Objects by their kinds and keys.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_kind: BTreeMap<Kind, BTreeMap<Key, Object>>,
    count: usize,
}

impl Objects {
    pub(super) fn get(&self, kind: Kind, key: &str) -> Option<&Object> {
        self.by_kind.get(&kind)?.get(key)
    }
}

/// What an event did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Added,
    Updated,
    Deleted,
    /// Nothing that labels are made of.
    Nothing,
    /// There was no room.
    Refused,
}

/// The targets of an object, and what they were made with.
#[derive(Debug)]
struct Standing {
    group: Group,
    needs: Box<[Need]>,
}

/// The objects, and the targets of those that have the role's kind.
#[derive(Debug)]
pub(super) struct Store {
    role: Role,
    attach: AttachMetadata,
    objects_max: usize,
    objects: Objects,
    groups: BTreeMap<Key, Standing>,
    targets: usize,
    /// The keys of the groups that need an object.
    needed: BTreeMap<Need, BTreeSet<Key>>,
    /// The keys of objects whose targets are to be made again.
    changed: BTreeSet<Key>,
}

impl Store {
    pub(super) fn new(role: Role, attach: AttachMetadata, objects_max: usize) -> Self {
        Self {
            role,
            attach,
            objects_max,
            objects: Objects::default(),
            groups: BTreeMap::new(),
            targets: 0,
            needed: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// How many objects there are.
    pub(super) const fn len(&self) -> usize {
        self.objects.count
    }

    /// How many objects have changed since targets were made.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Takes an object as it is now.
    pub(super) fn apply(&mut self, object: Object) -> Change {
        let (kind, key) = (object.kind(), key(&object));
        let is_full = self.objects.count >= self.objects_max;
        let own = self.objects.by_kind.entry(kind).or_default();
        let change = match own.get_mut(&key) {
            Some(before) if *before == object => return Change::Nothing,
            Some(before) => {
                *before = object;
                Change::Updated
            }
            None if is_full => return Change::Refused,
            None => {
                own.insert(key.clone(), object);
                self.objects.count += 1;
                Change::Added
            }
        };
        self.touch(kind, key);
        change
    }

    /// Lets an object go.
    pub(super) fn delete(&mut self, kind: Kind, key: &str) -> Change {
        let own = self.objects.by_kind.get_mut(&kind);
        let Some((key, _)) = own.and_then(|own| own.remove_entry(key)) else {
            return Change::Nothing;
        };
        self.objects.count -= 1;
        self.touch(kind, key);
        Change::Deleted
    }

    /// The keys of all objects of a kind, in a namespace or all.
    pub(super) fn keys(&self, kind: Kind, namespace: Option<&str>) -> Vec<Key> {
        let own = self.objects.by_kind.get(&kind);
        let keys = own.into_iter().flat_map(BTreeMap::keys);
        let is_wanted = |key: &&Key| match namespace {
            Some(namespace) => key.split('/').next() == Some(namespace),
            None => true,
        };
        keys.filter(is_wanted).cloned().collect()
    }

    fn touch(&mut self, kind: Kind, key: Key) {
        let need = (kind, key);
        if let Some(groups) = self.needed.get(&need) {
            self.changed.extend(groups.iter().cloned());
        }
        if kind == self.role.kind() {
            self.changed.insert(need.1);
        }
    }

    /// Makes the targets of what changed again.
    ///
    /// # Errors
    /// There are too many; what is left stays noted as changed.
    pub(super) fn make(&mut self) -> Result<(), String> {
        let (room, gone): (Vec<Key>, Vec<Key>) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|key| self.objects.get(self.role.kind(), key).is_some());
        // What is gone makes room.
        for key in gone {
            self.remove(&key);
        }
        let mut left = room.into_iter();
        while let Some(key) = left.next() {
            let before = self.remove(&key);
            let Some(object) = self.objects.get(self.role.kind(), &key) else {
                continue;
            };
            let made = targets::of(object, &self.objects, self.attach);
            if self.targets + made.targets.len() > TARGETS_MAX {
                let count = self.targets + made.targets.len();
                self.changed.insert(key);
                self.changed.extend(left);
                return Err(too_many(count));
            }
            // What did not change is given as the same, which nobody need compare.
            let group = match before {
                Some(group) if *group == *made.targets => group,
                _ => Arc::from(made.targets),
            };
            for need in &made.needs {
                let groups = self.needed.entry(need.clone()).or_default();
                groups.insert(key.clone());
            }
            self.targets += group.len();
            let needs = made.needs.into();
            self.groups.insert(key, Standing { group, needs });
        }
        Ok(())
    }

    /// Forgets the targets of an object, and gives them.
    fn remove(&mut self, key: &str) -> Option<Group> {
        let standing = self.groups.remove(key)?;
        for need in &standing.needs {
            if let Some(groups) = self.needed.get_mut(need) {
                groups.remove(key);
                if groups.is_empty() {
                    self.needed.remove(need);
                }
            }
        }
        self.targets -= standing.group.len();
        Some(standing.group)
    }

    /// All targets by the keys of their objects.
    pub(super) fn found(&self) -> Found {
        let groups = self.groups.iter();
        groups
            .map(|(key, standing)| ((**key).to_owned(), Ok(standing.group.clone())))
            .collect()
    }
}

/// The key of an object.
pub(super) fn key(object: &Object) -> Key {
    let meta = object.meta();
    if object.kind().is_namespaced() {
        format!("{}/{}", meta.namespace, meta.name).into()
    } else {
        meta.name.clone()
    }
}
