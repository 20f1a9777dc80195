//! Query parameters of the node's server.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;

/// Names and values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// Whether any of these names is true (`1`, `true`, or there at all).
    pub fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|n| self.get(n).is_some_and(|v| !matches!(v, "0" | "false" | "False" | "FALSE" | "f" | "F")))
    }

    /// A number; an error names what is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        match self.get(name).filter(|v| !v.is_empty()) {
            Some(text) => text.parse().map(Some).map_err(|_| format!("{name} must be a number of 0 or more, not {text:?}")),
            None => Ok(None),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_flags_and_escapes() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a%2Bb+c&tty=false&input=1&tailLines=x&bad=%zz");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a+b c"]);
        assert!(query.flag(&["stdin", "input"]) && !query.flag(&["tty"]) && !query.flag(&["none"]));
        assert!(query.number("tailLines").is_err());
        assert_eq!((query.number("none"), query.get("bad")), (Ok(None), Some("%zz")));
    }
}
