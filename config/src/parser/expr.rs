//! Turns tokens into expressions: operators by precedence, then access, index and call, then primaries.

use super::{Parser, unwrap_quotes};
use crate::ast::{BinaryOp, Expr, ExprKind, Field, Ident, Literal, LiteralKind, UnaryOp};
use crate::source::Span;
use crate::token::{Token, TokenKind};

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Expr {
        if !self.enter() {
            return self.null_here();
        }
        let expr = self.binary(1);
        self.leave();
        expr
    }

    /// Left-associative operators of at least this precedence.
    fn binary(&mut self, least: u8) -> Expr {
        let mut left = self.power();
        while let Some((op, precedence)) = binary_operator(self.token.kind) {
            if precedence < least {
                break;
            }
            self.next();
            let right = self.binary(precedence + 1);
            let span = left.span.to(right.span);
            left = self.build(ExprKind::Binary(Box::new(left), op, Box::new(right)), span);
        }
        left
    }

    fn power(&mut self) -> Expr {
        let left = self.unary();
        if self.token.kind != TokenKind::Pow {
            return left;
        }
        self.next();
        if !self.enter() {
            return left;
        }
        let right = self.power();
        self.leave();
        let span = left.span.to(right.span);
        self.build(
            ExprKind::Binary(Box::new(left), BinaryOp::Pow, Box::new(right)),
            span,
        )
    }

    fn unary(&mut self) -> Expr {
        let op = match self.token.kind {
            TokenKind::Not => UnaryOp::Not,
            TokenKind::Sub => UnaryOp::Negate,
            _ => return self.operand(),
        };
        let start = self.next().span;
        if !self.enter() {
            return self.null_here();
        }
        let value = self.unary();
        self.leave();
        let span = start.to(value.span);
        self.build(ExprKind::Unary(op, Box::new(value)), span)
    }

    /// A primary with the accesses, indexes and calls after it.
    fn operand(&mut self) -> Expr {
        let mut target = self.primary();
        loop {
            target = match self.token.kind {
                TokenKind::Dot => {
                    self.next();
                    let token = self.expect(TokenKind::Ident);
                    let name = Ident {
                        name: token.text.to_owned(),
                        span: token.span,
                    };
                    let span = target.span.to(name.span);
                    self.build(ExprKind::Access(Box::new(target), name), span)
                }
                TokenKind::LeftBracket => {
                    self.next();
                    let index = self.expression();
                    let span = target.span.to(self.expect(TokenKind::RightBracket).span);
                    self.build(ExprKind::Index(Box::new(target), Box::new(index)), span)
                }
                TokenKind::LeftParen => {
                    self.next();
                    let args = self.expressions(TokenKind::RightParen);
                    let span = target.span.to(self.expect(TokenKind::RightParen).span);
                    self.build(ExprKind::Call(Box::new(target), args), span)
                }
                TokenKind::String | TokenKind::LeftCurly => {
                    if !self.skip_block_after(&target) {
                        return target;
                    }
                    target
                }
                _ => return target,
            };
        }
    }

    /// Reads what looks like the rest of a block given as a value, to say so instead of failing at
    /// its brace. `false`: it was no block after all, and the statement is skipped.
    fn skip_block_after(&mut self, name: &Expr) -> bool {
        if self.token.kind == TokenKind::String {
            self.next();
        }
        if self.expect(TokenKind::LeftCurly).kind != TokenKind::LeftCurly {
            self.skip_statement();
            return false;
        }
        self.statements(TokenKind::RightCurly);
        let close = self.expect(TokenKind::RightCurly);
        if close.kind != TokenKind::RightCurly {
            self.skip_statement();
            return false;
        }
        self.report(
            name.span.to(close.span),
            "cannot use a block as an expression",
        );
        true
    }

    fn primary(&mut self) -> Expr {
        let kind = match self.token.kind {
            TokenKind::Ident => {
                let token = self.next();
                return self.build(ExprKind::Identifier(token.text.to_owned()), token.span);
            }
            TokenKind::String => LiteralKind::String,
            TokenKind::Number => LiteralKind::Number,
            TokenKind::Float => LiteralKind::Float,
            TokenKind::Bool => LiteralKind::Bool,
            TokenKind::Null => LiteralKind::Null,
            TokenKind::LeftParen => {
                let open = self.next().span;
                let inner = self.expression();
                let close = self.expect(TokenKind::RightParen).span;
                return self.build(ExprKind::Paren(Box::new(inner)), open.to(close));
            }
            TokenKind::LeftBracket => {
                let open = self.next().span;
                let items = self.expressions(TokenKind::RightBracket);
                let close = self.expect(TokenKind::RightBracket).span;
                return self.build(ExprKind::Array(items), open.to(close));
            }
            TokenKind::LeftCurly => {
                let open = self.next().span;
                let fields = self.fields();
                let close = self.expect(TokenKind::RightCurly).span;
                return self.build(ExprKind::Object(fields), open.to(close));
            }
            _ => return self.missing_primary(),
        };
        let token = self.next();
        self.build(
            ExprKind::Literal(Literal {
                kind,
                text: token.text.to_owned(),
            }),
            token.span,
        )
    }

    fn missing_primary(&mut self) -> Expr {
        self.expected("expression");
        let placeholder = self.null_here();
        while !matches!(
            self.token.kind,
            TokenKind::Eof
                | TokenKind::Terminator
                | TokenKind::RightParen
                | TokenKind::RightCurly
                | TokenKind::RightBracket
                | TokenKind::Comma
        ) {
            self.next();
        }
        placeholder
    }

    fn expressions(&mut self, until: TokenKind) -> Vec<Expr> {
        let mut items = Vec::new();
        while self.token.kind != until && self.token.kind != TokenKind::Eof {
            items.push(self.expression());
            if self.token.kind == until {
                break;
            }
            self.comma("missing ',' in expression list");
        }
        items
    }

    fn fields(&mut self) -> Vec<Field> {
        let mut fields = Vec::new();
        while !matches!(self.token.kind, TokenKind::RightCurly | TokenKind::Eof) {
            fields.push(self.field());
            if self.token.kind == TokenKind::RightCurly {
                break;
            }
            self.comma("missing ',' in field list");
        }
        fields
    }

    fn field(&mut self) -> Field {
        let key = match self.token.kind {
            TokenKind::Ident | TokenKind::String => self.next(),
            _ => {
                self.expected("field name (string or identifier)");
                self.skip_to(TokenKind::Assign);
                self.token
            }
        };
        self.expect(TokenKind::Assign);
        let (name, quoted) = field_name(&key);
        let name = Ident {
            name: name.to_owned(),
            span: key.span,
        };
        Field {
            name,
            quoted,
            value: self.expression(),
        }
    }

    fn comma(&mut self, complaint: &str) {
        if self.token.kind != TokenKind::Comma {
            self.error(complaint.to_owned());
        }
        self.next();
    }

    /// Stands in for an expression that could not be read; the error is already reported.
    fn null_here(&self) -> Expr {
        let literal = Literal {
            kind: LiteralKind::Null,
            text: "null".to_owned(),
        };
        Expr {
            kind: ExprKind::Literal(literal),
            span: Span::at(self.token.span.start),
            height: 1,
        }
    }

    /// Chains such as `a.b.c` grow in a loop, not by recursion, so the height is checked here.
    fn build(&mut self, kind: ExprKind, span: Span) -> Expr {
        let height = kind.height();
        if height > super::MAX_HEIGHT {
            self.stop_too_deep(super::MAX_HEIGHT);
        }
        Expr { kind, span, height }
    }
}

/// An empty quoted key stands for two quote characters: the reference behaves so.
fn field_name<'a>(key: &Token<'a>) -> (&'a str, bool) {
    if key.kind == TokenKind::String && key.text.len() > 2 {
        return (unwrap_quotes(key.text), true);
    }
    (key.text, false)
}

fn binary_operator(kind: TokenKind) -> Option<(BinaryOp, u8)> {
    Some(match kind {
        TokenKind::Or => (BinaryOp::Or, 1),
        TokenKind::And => (BinaryOp::And, 2),
        TokenKind::Eq => (BinaryOp::Eq, 3),
        TokenKind::NotEq => (BinaryOp::NotEq, 3),
        TokenKind::Less => (BinaryOp::Less, 3),
        TokenKind::LessEq => (BinaryOp::LessEq, 3),
        TokenKind::Greater => (BinaryOp::Greater, 3),
        TokenKind::GreaterEq => (BinaryOp::GreaterEq, 3),
        TokenKind::Add => (BinaryOp::Add, 4),
        TokenKind::Sub => (BinaryOp::Sub, 4),
        TokenKind::Mul => (BinaryOp::Mul, 5),
        TokenKind::Div => (BinaryOp::Div, 5),
        TokenKind::Mod => (BinaryOp::Mod, 5),
        _ => return None,
    })
}
