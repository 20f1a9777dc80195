//! From tokens to the tree, by precedence.

use super::{
    CompileError,
    ast::{Each, Expr},
    lexer::{Token, tokens},
};

/// Nested parts; deeper expressions are refused before they can exhaust the stack.
const MAX_DEPTH: usize = 96;
/// Levels of the tree: whoever walks it does so on the stack of a worker, a dozen KiB for each level without optimisation. Operators and links of
/// a chain lie each below the next.
const MAX_HEIGHT: usize = 128;
/// Words that are no names.
const RESERVED: [&str; 4] = ["in", "true", "false", "null"];

/// Reads an expression.
pub(super) fn parse(source: &str) -> Result<Expr, CompileError> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, depth: 0, height: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.error("unexpected token")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// Levels of the tallest tree among those read since somebody [began](Parser::begin) a node.
    height: usize,
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Call { target: None, name: name.into(), args }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn error(&self, why: &str) -> CompileError {
        CompileError::Syntax { at: self.tokens[self.at].0, why: why.into() }
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Token::Sign(s) if *s == sign);
        if there {
            self.next();
        }
        there
    }

    fn must(&mut self, sign: &str) -> Result<(), CompileError> {
        if self.takes(sign) { Ok(()) } else { Err(self.error(&format!("expected {sign:?}"))) }
    }

    /// A new node: what is read from here on lies below it. What was there before is for [`Self::end`].
    fn begin(&mut self) -> usize {
        std::mem::take(&mut self.height)
    }

    /// Another level above what was read.
    fn grow(&mut self) -> Result<(), CompileError> {
        self.height += 1;
        if self.height > MAX_HEIGHT { Err(self.error("nested too deep")) } else { Ok(()) }
    }

    /// The node is read: it stands beside what was there before it.
    fn end(&mut self, before: usize) {
        self.height = self.height.max(before);
    }

    fn expr(&mut self) -> Result<Expr, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        let before = self.begin();
        let condition = self.or()?;
        let out = if self.takes("?") {
            let yes = self.or()?;
            self.must(":")?;
            let no = self.expr()?;
            self.grow()?;
            Expr::If(Box::new(condition), Box::new(yes), Box::new(no))
        } else {
            condition
        };
        self.end(before);
        self.depth -= 1;
        Ok(out)
    }

    fn or(&mut self) -> Result<Expr, CompileError> {
        let before = self.begin();
        let mut terms = vec![self.and()?];
        while self.takes("||") {
            terms.push(self.and()?);
        }
        self.join(terms.len(), before)?;
        Ok(balanced(terms, &|a, b| Expr::Or(Box::new(a), Box::new(b))))
    }

    fn and(&mut self) -> Result<Expr, CompileError> {
        let before = self.begin();
        let mut terms = vec![self.relation()?];
        while self.takes("&&") {
            terms.push(self.relation()?);
        }
        self.join(terms.len(), before)?;
        Ok(balanced(terms, &|a, b| Expr::And(Box::new(a), Box::new(b))))
    }

    /// Terms of one sign make a tree that is no taller than it must be.
    fn join(&mut self, terms: usize, before: usize) -> Result<(), CompileError> {
        for _ in 0..terms.next_power_of_two().ilog2() {
            self.grow()?;
        }
        self.end(before);
        Ok(())
    }

    fn relation(&mut self) -> Result<Expr, CompileError> {
        let before = self.begin();
        let mut left = self.sum()?;
        loop {
            let sign = match self.peek() {
                Token::Sign(s @ ("<" | "<=" | ">" | ">=" | "==" | "!=")) => (*s).to_owned(),
                Token::Name(name) if name == "in" => "in".to_owned(),
                _ => break,
            };
            self.next();
            left = call(&sign, vec![left, self.sum()?]);
            self.grow()?;
        }
        self.end(before);
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr, CompileError> {
        let before = self.begin();
        let mut left = self.product()?;
        while let Token::Sign(s @ ("+" | "-")) = *self.peek() {
            self.next();
            left = call(s, vec![left, self.product()?]);
            self.grow()?;
        }
        self.end(before);
        Ok(left)
    }

    fn product(&mut self) -> Result<Expr, CompileError> {
        let before = self.begin();
        let mut left = self.unary()?;
        while let Token::Sign(s @ ("*" | "/" | "%")) = *self.peek() {
            self.next();
            left = call(s, vec![left, self.unary()?]);
            self.grow()?;
        }
        self.end(before);
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        if self.takes("!") {
            return self.deeper(|parser| Ok(call("!", vec![parser.unary()?])));
        }
        if self.takes("-") {
            if let Token::Int(n) = *self.peek()
                && !matches!(self.tokens.get(self.at + 1), Some((_, Token::Sign("." | "[" | "[?" | ".?"))))
            {
                let value = i64::try_from(-i128::from(n)).map_err(|_| self.error("the number is too small"))?;
                self.next();
                return Ok(Expr::Int(value));
            }
            return self.deeper(|parser| Ok(call("-", vec![parser.unary()?])));
        }
        self.member()
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<Expr, CompileError>) -> Result<Expr, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        let before = self.begin();
        let out = read(self)?;
        self.grow()?;
        self.end(before);
        self.depth -= 1;
        Ok(out)
    }

    fn member(&mut self) -> Result<Expr, CompileError> {
        let before = self.begin();
        let mut of = self.primary()?;
        loop {
            self.grow()?;
            if self.takes(".") {
                let field = self.name()?;
                of = if self.takes("(") { self.method(of, field)? } else { Expr::Select { of: Box::new(of), field, optional: false } };
            } else if self.takes(".?") {
                of = Expr::Select { of: Box::new(of), field: self.name()?, optional: true };
            } else if let Some(name) = qualified(&of)
                && self.takes("{")
            {
                of = Expr::Make { name, fields: self.fields()? };
            } else if let Some(optional) = self.bracket() {
                let at = Box::new(self.expr()?);
                self.must("]")?;
                of = Expr::Index { of: Box::new(of), at, optional };
            } else {
                self.end(before);
                return Ok(of);
            }
        }
    }

    /// Whether an index begins here, and whether it is an optional one.
    fn bracket(&mut self) -> Option<bool> {
        if self.takes("[?") { Some(true) } else { self.takes("[").then_some(false) }
    }

    fn name(&mut self) -> Result<String, CompileError> {
        match self.next() {
            Token::Name(name) => Ok(name),
            _ => Err(self.error("expected a name")),
        }
    }

    fn args(&mut self) -> Result<Vec<Expr>, CompileError> {
        let mut out = Vec::new();
        if self.takes(")") {
            return Ok(out);
        }
        loop {
            out.push(self.expr()?);
            if self.takes(")") {
                return Ok(out);
            }
            self.must(",")?;
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        match self.next() {
            Token::Int(n) => i64::try_from(n).map(Expr::Int).map_err(|_| self.error("the number is too large")),
            Token::Uint(n) => Ok(Expr::Uint(n)),
            Token::Double(n) => Ok(Expr::Double(n)),
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Bytes(bytes) => Ok(Expr::Bytes(bytes)),
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.must(")")?;
                Ok(inner)
            }
            Token::Sign("[") => self.list("]"),
            Token::Sign("[?") => {
                let first = self.expr()?;
                let mut items = vec![(true, first)];
                if self.takes(",")
                    && let Expr::List(rest) = self.list("]")?
                {
                    items.extend(rest);
                    return Ok(Expr::List(items));
                }
                self.must("]")?;
                Ok(Expr::List(items))
            }
            Token::Sign("{") => self.map(),
            Token::Name(word) if word == "true" => Ok(Expr::Bool(true)),
            Token::Name(word) if word == "false" => Ok(Expr::Bool(false)),
            Token::Name(word) if word == "null" => Ok(Expr::Null),
            Token::Name(word) if RESERVED.contains(&word.as_str()) => Err(self.error("unexpected word")),
            Token::Name(name) if self.takes("(") => {
                let args = self.args()?;
                self.function(name, args)
            }
            Token::Name(name) => Ok(Expr::Name(name)),
            _ => {
                self.at = self.at.saturating_sub(1);
                Err(self.error("unexpected token"))
            }
        }
    }

    fn list(&mut self, end: &str) -> Result<Expr, CompileError> {
        let mut items = Vec::new();
        while !self.takes(end) {
            let optional = self.takes("?");
            items.push((optional, self.expr()?));
            if !self.takes(",") {
                self.must(end)?;
                break;
            }
        }
        Ok(Expr::List(items))
    }

    /// What stands between the braces of a made object.
    fn fields(&mut self) -> Result<Vec<(bool, String, Expr)>, CompileError> {
        let mut fields = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let name = self.name()?;
            self.must(":")?;
            fields.push((optional, name, self.expr()?));
            if !self.takes(",") {
                self.must("}")?;
                break;
            }
        }
        Ok(fields)
    }

    fn map(&mut self) -> Result<Expr, CompileError> {
        let mut items = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let key = self.expr()?;
            self.must(":")?;
            items.push((optional, key, self.expr()?));
            if !self.takes(",") {
                self.must("}")?;
                break;
            }
        }
        Ok(Expr::Map(items))
    }

    fn function(&self, name: String, mut args: Vec<Expr>) -> Result<Expr, CompileError> {
        if name != "has" {
            return Ok(call(&name, args));
        }
        match (args.pop(), args.is_empty()) {
            (Some(Expr::Select { of, field, optional: false }), true) => Ok(Expr::Has { of, field }),
            _ => Err(self.error("has() takes a field of something")),
        }
    }

    /// A call of something, or one of the macros.
    fn method(&mut self, of: Expr, name: String) -> Result<Expr, CompileError> {
        let args = self.args()?;
        let is_cel = matches!(&of, Expr::Name(n) if n == "cel");
        let kind = match (name.as_str(), args.len()) {
            ("bind", 3) if is_cel => {
                let [var, value, body] = <[Expr; 3]>::try_from(args).map_err(|_| self.error("bind() takes three arguments"))?;
                return Ok(Expr::Bind { name: self.variable(var)?, value: Box::new(value), body: Box::new(body) });
            }
            ("optMap" | "optFlatMap", 2) => {
                let [var, body] = <[Expr; 2]>::try_from(args).map_err(|_| self.error("two arguments"))?;
                let flat = name == "optFlatMap";
                return Ok(Expr::OptMap { of: Box::new(of), var: self.variable(var)?, body: Box::new(body), flat });
            }
            ("sortBy", 2) => {
                let [var, key] = <[Expr; 2]>::try_from(args).map_err(|_| self.error("two arguments"))?;
                return Ok(Expr::SortBy { of: Box::new(of), var: self.variable(var)?, key: Box::new(key) });
            }
            ("all", 2 | 3) => Each::All,
            ("exists", 2 | 3) => Each::Exists,
            ("exists_one" | "existsOne", 2 | 3) => Each::ExistsOne,
            ("map", 2 | 3) | ("transformList", 3 | 4) => Each::Map,
            ("filter", 2) => Each::Filter,
            ("transformMap", 3 | 4) => Each::TransformMap,
            ("transformMapEntry", 3 | 4) => Each::TransformMapEntry,
            _ => return Ok(Expr::Call { target: Some(Box::new(of)), name, args }),
        };
        let two = matches!(name.as_str(), "transformList" | "transformMap" | "transformMapEntry") || (args.len() == 3 && name != "map");
        let mut rest = args.into_iter();
        let mut vars = Vec::new();
        for _ in 0..if two { 2 } else { 1 } {
            let var = rest.next().ok_or_else(|| self.error("too few arguments"))?;
            vars.push(self.variable(var)?);
        }
        let first = rest.next().ok_or_else(|| self.error("too few arguments"))?;
        let (filter, body) = match rest.next() {
            Some(body) => (Some(Box::new(first)), body),
            None => (None, first),
        };
        Ok(Expr::Each { kind, range: Box::new(of), vars, filter, body: Box::new(body) })
    }

    fn variable(&self, expr: Expr) -> Result<String, CompileError> {
        match expr {
            Expr::Name(name) => Ok(name),
            _ => Err(self.error("a variable must be a plain name")),
        }
    }
}

/// `Object.spec`: names with dots between them.
fn qualified(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Name(name) => Some(name.clone()),
        Expr::Select { of, field, optional: false } => Some(format!("{}.{field}", qualified(of)?)),
        _ => None,
    }
}

/// A tree of terms that is no deeper than it must be.
fn balanced(mut terms: Vec<Expr>, join: &dyn Fn(Expr, Expr) -> Expr) -> Expr {
    if terms.len() > 1 {
        let right = terms.split_off(terms.len() / 2);
        return join(balanced(terms, join), balanced(right, join));
    }
    terms.pop().unwrap_or(Expr::Null)
}
