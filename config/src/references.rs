//! Turns a block into the list of names it needs from elsewhere.
//!
//! Only static paths count: an identifier and the `.name` accesses right after it. What a computed
//! index leads to is not known before evaluation.

use std::sync::Arc;

use crate::ast::{Block, Expr, ExprKind, Statement};
use crate::diag::Diagnostic;
use crate::eval::Scope;
use crate::source::{Source, Span};

/// A dotted path used in an expression.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The parts, the identifier first.
    pub path: Vec<String>,
    /// Where the path stands.
    pub span: Span,
    /// The text it stands in.
    pub source: Arc<Source>,
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The node of this ID.
    Node(String),
    /// A variable or a name of the standard library.
    Scope,
}

impl Reference {
    /// Finds what the path leads to: the shortest prefix that is a node's ID, else a name in `scope`.
    ///
    /// # Errors
    /// Neither: the component does not exist.
    pub fn resolve(
        &self,
        scope: &Scope,
        is_node: impl Fn(&str) -> bool,
    ) -> Result<Target, Diagnostic> {
        let mut id = String::new();
        for part in &self.path {
            if !id.is_empty() {
                id.push('.');
            }
            id.push_str(part);
            if is_node(&id) {
                return Ok(Target::Node(id));
            }
        }
        if self.path.first().is_some_and(|name| scope.contains(name)) {
            return Ok(Target::Scope);
        }
        Err(self.does_not_exist())
    }

    /// The error of a path that leads nowhere.
    pub fn does_not_exist(&self) -> Diagnostic {
        let path = self.path.join(".");
        let message = format!("component {path:?} does not exist or is out of scope");
        Diagnostic::error(&self.source, self.span, message)
    }
}

/// Every static path used in a block, nested blocks included, in reading order.
pub fn references(block: &Block) -> Vec<Reference> {
    let mut found = Vec::new();
    in_block(block, &mut found);
    found
}

/// The static paths of one expression.
pub(crate) fn paths(expr: &Expr) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    in_expr(expr, &mut |path, _| found.push(path));
    found
}

fn in_block(block: &Block, found: &mut Vec<Reference>) {
    for statement in &block.body {
        match statement {
            Statement::Attribute(attribute) => in_expr(&attribute.value, &mut |path, span| {
                found.push(Reference {
                    path,
                    span,
                    source: Arc::clone(&block.source),
                });
            }),
            Statement::Block(inner) => in_block(inner, found),
        }
    }
}

fn in_expr(expr: &Expr, found: &mut dyn FnMut(Vec<String>, Span)) {
    if let Some(path) = static_path(expr) {
        found(path, expr.span);
        return;
    }
    let mut visit = |expr: &Expr| in_expr(expr, found);
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Identifier(_) => {}
        ExprKind::Array(items) => items.iter().for_each(visit),
        ExprKind::Object(fields) => fields.iter().for_each(|field| visit(&field.value)),
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) | ExprKind::Access(inner, _) => {
            visit(inner);
        }
        ExprKind::Binary(left, _, right) | ExprKind::Index(left, right) => {
            visit(left);
            visit(right);
        }
        ExprKind::Call(function, args) => {
            visit(function);
            args.iter().for_each(visit);
        }
    }
}

fn static_path(expr: &Expr) -> Option<Vec<String>> {
    match &expr.kind {
        ExprKind::Identifier(name) => Some(vec![name.clone()]),
        ExprKind::Access(target, name) => {
            let mut path = static_path(target)?;
            path.push(name.name.clone());
            Some(path)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse;

    fn paths(body: &str) -> Vec<Reference> {
        references(
            &parse("f", &format!("c \"l\" {{\n{body}\n}}"))
                .unwrap()
                .blocks[0],
        )
    }

    #[test]
    fn static_paths_are_found_everywhere() {
        let body = "a = [p.w.x.receiver, {k = q.r[s.t].u}]\nb {\n c = f(-(g.h), y + \"z\")\n}";
        let found: Vec<String> = paths(body).iter().map(|r| r.path.join(".")).collect();
        assert_eq!(found, ["p.w.x.receiver", "q.r", "s.t", "f", "g.h", "y"]);
    }

    #[test]
    fn the_shortest_known_prefix_is_the_node() {
        let reference = &paths("a = discovery.kubernetes.pods.targets")[0];
        let scope = Scope::new();
        let known = |id: &str| id.starts_with("discovery.kubernetes.pods");
        assert_eq!(reference.resolve(&scope, known), {
            Ok(Target::Node("discovery.kubernetes.pods".to_owned()))
        });
        let error = reference.resolve(&scope, |_| false).unwrap_err();
        assert_eq!(error.to_string(), {
            "f:2:5: component \"discovery.kubernetes.pods.targets\" does not exist or is out of scope"
        });
        let reference = &paths("a = sys.env(\"X\")")[0];
        assert_eq!(reference.resolve(&scope, |_| false), Ok(Target::Scope));
    }
}
