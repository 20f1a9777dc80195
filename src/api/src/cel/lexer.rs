//! Tokens of an expression.

use super::CompileError;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 27] = [
    "&&", "||", "==", "!=", "<=", ">=", "[?", ".?", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "<", ">", "+", "-", "*", "/", "%",
    "!", ";",
];

fn error(at: usize, why: impl Into<String>) -> CompileError {
    CompileError::Syntax { at, why: why.into() }
}

/// The tokens with the character where each begins.
pub(super) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, CompileError> {
    let chars: Vec<char> = source.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c.is_whitespace() {
            at += 1;
        } else if c == '/' && chars.get(at + 1) == Some(&'/') {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c.is_ascii_digit() || (c == '.' && chars.get(at + 1).is_some_and(char::is_ascii_digit)) {
            let (token, end) = number(&chars, at)?;
            out.push((at, token));
            at = end;
        } else if let Some((raw, bytes, quote)) = literal(&chars, at) {
            let (token, end) = text(&chars, quote, raw, bytes)?;
            out.push((at, token));
            at = end;
        } else if c.is_alphabetic() || c == '_' {
            let end = (at..chars.len()).find(|i| !(chars[*i].is_ascii_alphanumeric() || chars[*i] == '_')).unwrap_or(chars.len());
            if end == at {
                return Err(error(at, format!("unexpected character {c:?}")));
            }
            out.push((at, Token::Name(chars[at..end].iter().collect())));
            at = end;
        } else {
            let next: String = chars[at..chars.len().min(at + 2)].iter().collect();
            let sign =
                *SIGNS.iter().find(|sign| next.starts_with(**sign)).ok_or_else(|| error(at, format!("unexpected character {c:?}")))?;
            out.push((at, Token::Sign(sign)));
            at += sign.len();
        }
    }
    out.push((chars.len(), Token::End));
    Ok(out)
}

fn number(chars: &[char], start: usize) -> Result<(Token, usize), CompileError> {
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    if at(start) == '0' && matches!(at(start + 1), 'x' | 'X') {
        let end = (start + 2..=chars.len()).find(|i| !at(*i).is_ascii_hexdigit()).unwrap_or(chars.len());
        let digits: String = chars[start + 2..end].iter().collect();
        let value = u64::from_str_radix(&digits, 16).map_err(|_| error(start, "not a number"))?;
        return Ok(if matches!(at(end), 'u' | 'U') { (Token::Uint(value), end + 1) } else { (Token::Int(value), end) });
    }
    let mut end = start;
    let mut real = false;
    while end < chars.len() {
        let digit_follows = at(end + 1).is_ascii_digit();
        match at(end) {
            c if c.is_ascii_digit() => {}
            '.' if !real && digit_follows => real = true,
            'e' | 'E' if digit_follows || (matches!(at(end + 1), '+' | '-') && at(end + 2).is_ascii_digit()) => {
                real = true;
                end += 1;
            }
            _ => break,
        }
        end += 1;
    }
    let digits: String = chars[start..end].iter().collect();
    if real {
        return Ok((Token::Double(digits.parse::<f64>().map_err(|_| error(start, "not a number"))?), end));
    }
    let value: u64 = digits.parse().map_err(|_| error(start, "not a number"))?;
    Ok(if matches!(at(end), 'u' | 'U') { (Token::Uint(value), end + 1) } else { (Token::Int(value), end) })
}

/// Whether a text begins here: raw, bytes, and where its quote is.
fn literal(chars: &[char], at: usize) -> Option<(bool, bool, usize)> {
    let (mut raw, mut bytes, mut i) = (false, false, at);
    while i < chars.len() && i < at + 2 {
        match chars[i] {
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes => bytes = true,
            _ => break,
        }
        i += 1;
    }
    matches!(chars.get(i), Some('"' | '\'')).then_some((raw, bytes, i))
}

fn text(chars: &[char], quote: usize, raw: bool, bytes: bool) -> Result<(Token, usize), CompileError> {
    let mark = chars[quote];
    let triple = chars.get(quote + 1) == Some(&mark) && chars.get(quote + 2) == Some(&mark);
    let mut at = quote + if triple { 3 } else { 1 };
    let mut out: Vec<u8> = Vec::new();
    let put = |out: &mut Vec<u8>, c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    loop {
        let c = *chars.get(at).ok_or_else(|| error(quote, "the text has no end"))?;
        if c == mark && (!triple || (chars.get(at + 1) == Some(&mark) && chars.get(at + 2) == Some(&mark))) {
            at += if triple { 3 } else { 1 };
            break;
        }
        if c == '\n' && !triple {
            return Err(error(at, "the text has no end"));
        }
        if c != '\\' || raw {
            put(&mut out, c);
            at += 1;
            continue;
        }
        let escape = *chars.get(at + 1).ok_or_else(|| error(at, "the text has no end"))?;
        let code = |from: usize, count: usize, radix: u32| -> Result<u32, CompileError> {
            let digits: String = chars.get(from..from + count).unwrap_or_default().iter().collect();
            u32::from_str_radix(&digits, radix).map_err(|_| error(at, "unknown escape"))
        };
        let plain = match escape {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            '\\' | '\'' | '"' | '`' | '?' => Some(escape),
            _ => None,
        };
        if let Some(c) = plain {
            put(&mut out, c);
            at += 2;
            continue;
        }
        let (value, count) = match escape {
            'x' | 'X' => (code(at + 2, 2, 16)?, 4),
            'u' => (code(at + 2, 4, 16)?, 6),
            'U' => (code(at + 2, 8, 16)?, 10),
            '0'..='3' => (code(at + 1, 3, 8)?, 4),
            _ => return Err(error(at, "unknown escape")),
        };
        if bytes && count == 4 {
            out.push(u8::try_from(value).map_err(|_| error(at, "unknown escape"))?);
        } else {
            put(&mut out, char::from_u32(value).ok_or_else(|| error(at, "no such character"))?);
        }
        at += count;
    }
    let token = if bytes { Token::Bytes(out) } else { Token::Text(String::from_utf8(out).map_err(|_| error(quote, "no such character"))?) };
    Ok((token, at))
}
