//! Turns the text of a configuration into everything that is wrong with it as far as text can tell.
//!
//! Nothing is started, fetched or looked up: a configuration may be checked elsewhere than it runs. What an
//! import brings is not known, so that what is used of it is taken on trust.
//!
//! # Invariants
//! - What [`super::Graph::load`] would refuse for its structure is refused here; so are arguments whose text
//!   alone is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{
    Block, Diagnostic, Diagnostics, File, Reference, Scope, Severity, Statement, Target, Value,
};

use super::env::{Declared, Env};
use super::sketch::{Around, Place, Sketch, What, at_header, blocks_of, variable_of};
use super::{Stability, foreach, import};

/// Everything wrong with the files of a configuration, by file and place. Warnings are in it too.
pub(crate) fn check(files: Vec<File>, stability: Stability) -> Diagnostics {
    let blocks = files.into_iter().flat_map(|file| file.blocks);
    let blocks: Vec<Arc<Block>> = blocks.map(Arc::new).collect();
    let mut checker = Checker {
        stability,
        found: Vec::new(),
    };
    let mut scope = Scope::new();
    scope.set("module_path", "");
    checker.body(&Body {
        blocks: &blocks,
        place: Place::Root,
        around: Arc::default(),
        scope,
        outer: &|_| false,
    });
    // A template is looked at as a part of what it is in and by itself.
    let mut found = checker.found;
    let key = |one: &Diagnostic| {
        (
            one.source.name().to_owned(),
            one.span.start,
            one.message.clone(),
        )
    };
    found.sort_by_key(key);
    found.dedup_by_key(|one| key(one));
    let mut diagnostics = Diagnostics::new();
    for one in found {
        diagnostics.push(one);
    }
    diagnostics
}

/// Whether there is a node of an id.
type Nodes<'a> = &'a dyn Fn(&str) -> bool;

struct Checker {
    stability: Stability,
    found: Vec<Diagnostic>,
}

/// A list of blocks, and what they can refer to.
struct Body<'a> {
    blocks: &'a [Arc<Block>],
    place: Place,
    around: Arc<Env>,
    scope: Scope,
    /// Nodes around a template.
    outer: Nodes<'a>,
}

impl Checker {
    fn body(&mut self, body: &Body<'_>) {
        let env = Arc::new(env(body));
        let sketch = Sketch::new(
            body.blocks,
            Around {
                place: body.place,
                env: &body.around,
                scope: &body.scope,
                nodes: body.outer,
            },
        );
        self.found.extend(sketch.err().into_iter().flatten());
        let ids: BTreeSet<String> = body.blocks.iter().map(|block| block.id()).collect();
        let is_node = |id: &str| ids.contains(id) || (body.outer)(id);
        for block in body.blocks {
            match What::of(block, |name| env.has(name)) {
                Some(What::Known(known)) => {
                    self.found.extend(config::check(block, known.read));
                }
                Some(What::Declare) => self.declare(block, &env),
                Some(What::Foreach) => self.foreach(block, body, (&env, &is_node)),
                Some(What::Custom) => {
                    if let Some(declared) = env.find(&block.name.name) {
                        self.custom(block, &declared);
                    }
                }
                Some(What::Import) => {
                    let read = import::reader(&block.name.name);
                    self.found.extend(config::check(block, |r| drop(read(r))));
                }
                Some(What::Argument) => {
                    self.found.extend(config::check(block, |r| {
                        r.or("comment", String::new());
                        r.or("optional", false);
                        r.or("default", Value::Null);
                    }));
                }
                Some(What::Export) => {
                    let read = config::check(block, |r| drop(r.required::<Value>("value")));
                    self.found.extend(read);
                }
                // The sketch has said so.
                None => {}
            }
            // Those of others are in bodies of their own.
            if !matches!(block.name.name.as_str(), "declare" | "foreach") {
                self.names(block, (&body.scope, &is_node));
            }
        }
    }

    fn declare(&mut self, block: &Block, env: &Arc<Env>) {
        for statement in &block.body {
            if let Statement::Attribute(attribute) = statement {
                let message = format!("unrecognized attribute name {:?}", attribute.name.name);
                self.found
                    .push(Diagnostic::error(&block.source, attribute.span(), message));
            }
        }
        let mut scope = Scope::new();
        scope.set("module_path", "");
        let blocks: Vec<Arc<Block>> = blocks_of(block).cloned().map(Arc::new).collect();
        self.body(&Body {
            blocks: &blocks,
            place: Place::Module,
            around: env.clone(),
            scope,
            outer: &|_| false,
        });
    }

    fn foreach(&mut self, block: &Block, body: &Body<'_>, (env, is_node): (&Arc<Env>, Nodes<'_>)) {
        let refused = self.stability.needs_experimental(block, "foreach");
        self.found.extend(refused.err().into_iter().flatten());
        let own = foreach::without_template(block);
        self.found
            .extend(config::check(&own, |r| drop(foreach::arguments(r))));
        self.names(&own, (&body.scope, is_node));
        let Some(template) = foreach::template(block) else {
            self.found.push(at_header(block, foreach::NO_TEMPLATE));
            return;
        };
        let mut scope = body.scope.clone();
        let variable = variable_of(block);
        if let Some(variable) = &variable {
            scope.set(variable, Value::Null);
        }
        // With a variable nobody knows, any name may be its.
        let outer = |id: &str| variable.is_none() || is_node(id);
        let blocks: Vec<Arc<Block>> = blocks_of(template).cloned().map(Arc::new).collect();
        self.body(&Body {
            blocks: &blocks,
            place: Place::Template,
            around: env.clone(),
            scope,
            outer: &outer,
        });
    }

    /// The arguments of a custom component, by their names.
    fn custom(&mut self, block: &Block, declared: &Declared) {
        let mut expected: BTreeMap<&str, bool> = BTreeMap::new();
        for argument in blocks_of(&declared.block).filter(|inner| inner.name.name == "argument") {
            expected.insert(
                argument.label().unwrap_or_default(),
                may_be_optional(argument),
            );
        }
        for statement in &block.body {
            let (span, message) = match statement {
                Statement::Attribute(one) if expected.contains_key(one.name.name.as_str()) => {
                    expected.insert(one.name.name.as_str(), true);
                    continue;
                }
                Statement::Attribute(one) => {
                    let name = &one.name.name;
                    let message =
                        format!("Provided argument {name:?} is not defined in the module");
                    (one.span(), message)
                }
                Statement::Block(inner) => {
                    let name = &inner.name.name;
                    (inner.span, format!("unrecognized block name {name:?}"))
                }
            };
            self.found
                .push(Diagnostic::error(&block.source, span, message));
        }
        for (name, _) in expected.into_iter().filter(|(_, is_fine)| !is_fine) {
            let message = format!("missing required argument {name:?} to module");
            self.found.push(at_header(block, message));
        }
    }

    /// Names of the standard library: old, hidden by a component, or not to be used yet.
    fn names(&mut self, block: &Block, (scope, is_node): (&Scope, Nodes<'_>)) {
        let library = Scope::new();
        for reference in config::references(block) {
            let first = reference
                .path
                .first()
                .map(String::as_str)
                .unwrap_or_default();
            match reference.resolve(scope, is_node) {
                Ok(Target::Node(_)) if library.contains(first) => {
                    let message = format!(
                        "a component is shadowing an existing stdlib name: {}",
                        reference.path.join(".")
                    );
                    self.found.push(warning(&reference, message));
                }
                Ok(Target::Scope) => {
                    if let Some(new) = config::deprecated(first) {
                        let message = format!("{first:?} is deprecated, use {new:?}");
                        self.found.push(warning(&reference, message));
                    }
                    let function = reference.path.get(..2).unwrap_or_default().join(".");
                    if config::is_experimental(&function) {
                        let refused = self.stability.needs_experimental(block, &function);
                        let at = reference.span;
                        let moved = |one: Diagnostic| Diagnostic { span: at, ..one };
                        self.found
                            .extend(refused.err().into_iter().flatten().map(moved));
                    }
                }
                Ok(Target::Node(_)) | Err(_) => {}
            }
        }
    }
}

fn warning(reference: &Reference, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        ..Diagnostic::error(&reference.source, reference.span, message)
    }
}

/// What is in sight of the blocks of a body.
fn env(body: &Body<'_>) -> Env {
    let mut env = Env {
        around: Some(body.around.clone()),
        ..Env::default()
    };
    for block in body.blocks {
        let Some(label) = block.label().map(str::to_owned) else {
            continue;
        };
        match block.name.name.as_str() {
            "declare" => {
                env.declares.insert(label, block.clone());
            }
            name if name.starts_with("import.") => {
                env.imports.insert(label, Arc::default());
            }
            _ => {}
        }
    }
    env
}

/// Whether an argument need not be given, or nobody knows.
fn may_be_optional(argument: &Block) -> bool {
    let mut optional = argument
        .body
        .iter()
        .filter_map(|statement| match statement {
            Statement::Attribute(one) if one.name.name == "optional" => Some(&one.value),
            _ => None,
        });
    optional.next().is_some_and(|value| {
        let value = config::evaluate(value, &Scope::new(), &argument.source);
        !matches!(value, Ok(Value::Bool(false)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a text, one a line.
    fn found(text: &str) -> Vec<String> {
        let file = config::parse("a", text).unwrap();
        let all = check(vec![file], Stability::Experimental);
        all.iter()
            .map(|one| one.to_string().split_off("a:".len()))
            .collect()
    }

    #[test]
    fn a_good_configuration_is_good() {
        let text = r#"
            declare "chain" {
                argument "url" { }
                argument "site" {
                    optional = true
                    default  = "x"
                }
                prometheus.relabel "r" {
                    rule {
                        target_label = "site"
                        replacement  = argument.site.value
                    }
                    forward_to = [prometheus.remote_write.w.receiver]
                }
                prometheus.remote_write "w" {
                    endpoint {
                        url = argument.url.value
                    }
                }
                export "receiver" { value = prometheus.relabel.r.receiver }
            }
            import.git "more" {
                repository = "https://h/r"
                path       = "lib"
            }
            more.thing "x" {
                anything = 1
            }
            local.file "urls" { filename = "/etc/urls" }
            foreach "urls" {
                collection = encoding.from_json(local.file.urls.content)
                var        = "each"
                template {
                    chain "one" { url = each }
                    prometheus.receive_http "in" { forward_to = [chain.one.receiver, chain.all.receiver] }
                }
            }
            chain "all" { url = sys.env("URL") }
        "#;
        assert_eq!(found(text), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_found_wherever_it_is() {
        let table = [
            (
                "prometheus.relable \"x\" {}",
                "1:1: cannot find the definition of component name \"prometheus.relable\"; nearest: prometheus.relabel, prometheus.scrape, prometheus.echo",
            ),
            ("declare { }", "1:1: declare block must have a label"),
            (
                "logging {\n level = \"loud\"\n}",
                "2:10: \"loud\" must be one of error, warn, info, debug",
            ),
            (
                "prometheus.echo \"x\" {\n foo = 1\n}",
                "2:2: unrecognized attribute name \"foo\"",
            ),
            (
                "prometheus.relabel \"x\" {\n forward_to = [a.b.c]\n}",
                "2:16: component \"a.b.c\" does not exist or is out of scope",
            ),
            (
                "declare \"d\" {\n prometheus.relabel \"x\" {\n }\n}",
                "2:2: missing required attribute \"forward_to\"",
            ),
            (
                "declare \"d\" {\n logging { }\n}",
                "2:2: logging block not allowed inside a module",
            ),
            (
                "declare \"d\" {\n declare \"e\" {\n  d \"x\" { }\n }\n e \"y\" { }\n}",
                "1:1: cannot reference self: declare.d",
            ),
            (
                "declare \"d\" { }\nd \"x\" {\n a = 1\n}",
                "3:2: Provided argument \"a\" is not defined in the module",
            ),
            (
                "declare \"d\" {\n argument \"a\" { }\n}\nd \"x\" { }",
                "4:1: missing required argument \"a\" to module",
            ),
            (
                "declare \"d\" {\n export \"a\" { }\n}",
                "2:2: missing required attribute \"value\"",
            ),
            (
                "foreach \"f\" {\n collection = []\n var = \"v\"\n}",
                "1:1: missing required block \"template\"",
            ),
            (
                "foreach \"f\" {\n collection = []\n var = \"v\"\n template {\n  prometheus.relabel \"x\" {\n   forward_to = [w.x]\n  }\n }\n}",
                "6:18: component \"w.x\" does not exist or is out of scope",
            ),
            (
                "foreach \"f\" {\n collection = []\n var = \"v\"\n template {\n  argument \"x\" { }\n }\n}",
                "5:3: argument not allowed in foreach",
            ),
            (
                "import.http \"x\" {\n url = \"ftp://h\"\n}",
                "2:8: \"ftp://h\" must begin with http:// or https://",
            ),
            (
                "argument \"x\" { }",
                "1:1: argument blocks only allowed inside a module",
            ),
        ];
        for (text, want) in table {
            let all = found(text);
            assert_eq!(all, [want], "{text}");
        }
    }

    #[test]
    fn what_is_old_or_hidden_is_a_warning() {
        let text = "declare \"d\" {\n argument \"u\" { }\n}\nd \"x\" {\n u = env(\"U\")\n}\n\
                    declare \"string\" {\n export \"join\" {\n  value = 1\n }\n}\nstring \"join\" { }\n\
                    d \"y\" {\n u = string.join.join\n}\n";
        let file = config::parse("a", text).unwrap();
        let all = check(vec![file], Stability::GenerallyAvailable);
        assert!(!all.has_errors(), "{all}");
        let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "a:5:6: \"env\" is deprecated, use \"sys.env\"",
                "a:14:6: a component is shadowing an existing stdlib name: string.join.join",
            ]
        );
    }

    #[test]
    fn what_is_experimental_has_to_be_asked_for() {
        let text = "foreach \"f\" {\n collection = array.group_by([], \"a\", false)\n var = \"v\"\n template { }\n}\n\
                    declare \"d\" {\n export \"x\" {\n  value = array.group_by([], \"a\", false)\n }\n}\n";
        let file = || vec![config::parse("a", text).unwrap()];
        assert!(check(file(), Stability::Experimental).is_empty());
        let all = check(file(), Stability::PublicPreview);
        let places: Vec<String> = all.iter().map(|one| one.pos().to_string()).collect();
        assert_eq!(places, ["1:1", "2:15", "8:11"], "{all}");
    }
}
