//! Which representation the client wants: Accept, `as=Table`, `as=PartialObjectMetadata`.

use coracle_api::status::Status;
use http::{HeaderMap, header};

/// Bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What is made of the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    Whole,
    /// `Table` in this version of meta.k8s.io.
    Table(String),
    /// `PartialObjectMetadata` in this version of meta.k8s.io.
    Partial(String),
}

/// The representation of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bytes on the wire.
    pub media: Media,
    /// What is made of the objects.
    pub shape: Shape,
    /// Indented JSON (`?pretty`).
    pub pretty: bool,
}

impl Format {
    /// JSON of whole objects.
    pub const fn json() -> Self {
        Self { media: Media::Json, shape: Shape::Whole, pretty: false }
    }

    /// Content-Type of an answer that is no watch.
    pub fn content_type(&self) -> &'static str {
        match self.media {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// As [`Self::negotiate`], for a resource; the objects of a `custom` one are never written as protobuf.
    pub fn negotiate_objects(headers: &HeaderMap, pretty: Option<&str>, verb: &str, custom: bool) -> Result<Self, Status> {
        let will_do = |format: &Self| !(custom && format.media == Media::Protobuf && format.shape == Shape::Whole);
        let (format, shape) = Self::first(headers, pretty, verb == "watch", will_do)?;
        // One object is no list of them, nor the other way round; only then is it looked at what was chosen.
        let fits = match shape.as_str() {
            "PartialObjectMetadata" => verb != "list",
            "PartialObjectMetadataList" => !matches!(verb, "get" | "create" | "update" | "patch"),
            _ => true,
        };
        if fits { Ok(format) } else { Err(Status::new(406, "NotAcceptable", format!("the answer cannot be shown as {shape}"))) }
    }

    /// As [`Self::negotiate`], for what is never stored: there is nothing that a table or bare metadata could be made of.
    pub fn negotiate_whole(headers: &HeaderMap, pretty: Option<&str>) -> Result<Self, Status> {
        Self::first(headers, pretty, false, |format| format.shape == Shape::Whole).map(|(format, _)| format)
    }

    /// The first thing acceptable to the client; `watch` answers are streams, which YAML cannot be.
    pub fn negotiate(headers: &HeaderMap, pretty: Option<&str>, watch: bool) -> Result<Self, Status> {
        Self::first(headers, pretty, watch, |_| true).map(|(format, _)| format)
    }

    /// With what the chosen clause asks to be shown `as`.
    fn first(headers: &HeaderMap, pretty: Option<&str>, watch: bool, will_do: impl Fn(&Self) -> bool) -> Result<(Self, String), Status> {
        let mut accepted = Vec::new();
        for value in headers.get_all(header::ACCEPT) {
            for clause in value.to_str().unwrap_or_default().split(',') {
                accepted.extend(Clause::parse(clause));
            }
        }
        let pretty = pretty.is_some_and(|p| !matches!(p, "false" | "0"));
        if accepted.is_empty() {
            return Ok((Self { pretty, ..Self::json() }, String::new()));
        }
        // Stable: of equal quality the first wins.
        accepted.sort_by_key(|clause| std::cmp::Reverse(clause.quality));
        let shown = |clause: &Clause| Some((clause.format(pretty, watch)?, clause.param("as").to_owned()));
        accepted.iter().filter_map(shown).find(|(format, _)| will_do(format)).ok_or_else(|| {
            let media = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"].join(", ");
            Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {media}"))
        })
    }
}

struct Clause {
    media: String,
    quality: u32,
    params: Vec<(String, String)>,
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|m| !m.is_empty())?.to_ascii_lowercase();
        let mut clause = Self { media, quality: 1000, params: Vec::new() };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (key.trim(), value.trim().trim_matches('"'));
            if key == "q" {
                let quality: f32 = value.parse().unwrap_or(1.0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=1000 by the clamp")]
                let millis = (quality.clamp(0.0, 1.0) * 1000.0) as u32;
                clause.quality = millis;
            } else {
                clause.params.push((key.to_owned(), value.to_owned()));
            }
        }
        Some(clause)
    }

    fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str())
    }

    fn format(&self, pretty: bool, watch: bool) -> Option<Format> {
        let media = match self.media.as_str() {
            "application/json" | "*/*" => Media::Json,
            "application/yaml" if !watch => Media::Yaml,
            "application/vnd.kubernetes.protobuf" => Media::Protobuf,
            _ => return None,
        };
        let version = self.param("v");
        let known = self.param("g") == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
        let shape = match self.param("as") {
            "" => Shape::Whole,
            "Table" if known => Shape::Table(version.to_owned()),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if known => Shape::Partial(version.to_owned()),
            _ => return None,
        };
        let pretty = pretty || self.param("pretty") == "1";
        Some(Format { media, shape, pretty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, want: Option<(Media, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let got = Format::negotiate(&headers, None, false).map(|f| (f.media, f.shape));
        assert_eq!(got.ok(), want, "{accept}");
    }

    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(table, Some((Media::Json, Shape::Table("v1".into()))));
        check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Media::Json, Shape::Whole)));
        check("application/vnd.kubernetes.protobuf,application/json", Some((Media::Protobuf, Shape::Whole)));
        check("application/json;q=0.5, application/yaml", Some((Media::Yaml, Shape::Whole)));
        check("text/html, */*", Some((Media::Json, Shape::Whole)));
        check("application/*", None);
        check("text/html", None);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
        assert_eq!(Format::negotiate_whole(&headers, None).unwrap_err().code, 406);
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        check(partial, Some((Media::Json, Shape::Partial("v1".into()))));
    }
}
