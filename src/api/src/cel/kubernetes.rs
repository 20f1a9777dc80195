//! Kubernetes' own libraries: quantities, addresses, networks, URLs, versions, formats of names.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use super::{EvalError, Value, authorizer, eval::failed};
use crate::custom::checks::has_format;
use crate::names;
use crate::quantity::Quantity;

type Answer<'v> = Result<Value<'v>, EvalError>;

/// What they take and give, in the notation of the table of functions.
pub(super) const SIGNATURES: &str = "
. quantity string -> kubernetes.Quantity|. isQuantity string -> bool|kubernetes.Quantity isInteger -> bool|kubernetes.Quantity asInteger -> int
kubernetes.Quantity asApproximateFloat -> double|kubernetes.Quantity sign -> int|kubernetes.Quantity add kubernetes.Quantity -> kubernetes.Quantity
kubernetes.Quantity sub kubernetes.Quantity -> kubernetes.Quantity|kubernetes.Quantity add int -> kubernetes.Quantity|kubernetes.Quantity sub int -> kubernetes.Quantity
kubernetes.Quantity isLessThan kubernetes.Quantity -> bool|kubernetes.Quantity isGreaterThan kubernetes.Quantity -> bool|kubernetes.Quantity compareTo kubernetes.Quantity -> int
. ip string -> net.IP|. isIP string -> bool|. isIP string int -> bool|. ip.isCanonical string -> bool|net.IP family -> int|net.IP isUnspecified -> bool|net.IP isLoopback -> bool
net.IP isLinkLocalMulticast -> bool|net.IP isLinkLocalUnicast -> bool|net.IP isGlobalUnicast -> bool
. cidr string -> net.CIDR|. isCIDR string -> bool|net.CIDR containsIP string -> bool|net.CIDR containsIP net.IP -> bool|net.CIDR containsCIDR string -> bool
net.CIDR containsCIDR net.CIDR -> bool|net.CIDR ip -> net.IP|net.CIDR prefixLength -> int|net.CIDR masked -> net.CIDR
. url string -> kubernetes.URL|. isURL string -> bool|kubernetes.URL getScheme -> string|kubernetes.URL getHost -> string|kubernetes.URL getHostname -> string
kubernetes.URL getPort -> string|kubernetes.URL getEscapedPath -> string|kubernetes.URL getQuery -> map(string,list(string))
. semver string -> kubernetes.Semver|. semver string bool -> kubernetes.Semver|. isSemver string -> bool|. isSemver string bool -> bool
kubernetes.Semver major -> int|kubernetes.Semver minor -> int|kubernetes.Semver patch -> int|kubernetes.Semver isLessThan kubernetes.Semver -> bool
kubernetes.Semver isGreaterThan kubernetes.Semver -> bool|kubernetes.Semver compareTo kubernetes.Semver -> int
kubernetes.authorization.Authorizer path string -> kubernetes.authorization.PathCheck|kubernetes.authorization.Authorizer group string -> kubernetes.authorization.GroupCheck
kubernetes.authorization.Authorizer serviceAccount string string -> kubernetes.authorization.Authorizer|kubernetes.authorization.GroupCheck resource string -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck subresource string -> kubernetes.authorization.ResourceCheck|kubernetes.authorization.ResourceCheck namespace string -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck name string -> kubernetes.authorization.ResourceCheck|kubernetes.authorization.ResourceCheck fieldSelector string -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck labelSelector string -> kubernetes.authorization.ResourceCheck|kubernetes.authorization.ResourceCheck check string -> kubernetes.authorization.Decision
kubernetes.authorization.PathCheck check string -> kubernetes.authorization.Decision|kubernetes.authorization.Decision allowed -> bool|kubernetes.authorization.Decision reason -> string
kubernetes.authorization.Decision errored -> bool|kubernetes.authorization.Decision error -> string
. format.named string -> optional(kubernetes.NamedFormat)|. format.dns1123Label -> kubernetes.NamedFormat|. format.dns1123Subdomain -> kubernetes.NamedFormat|. format.dns1035Label -> kubernetes.NamedFormat
. format.qualifiedName -> kubernetes.NamedFormat|. format.labelValue -> kubernetes.NamedFormat|. format.uri -> kubernetes.NamedFormat|. format.uuid -> kubernetes.NamedFormat
. jsonpatch.escapeKey string -> string|. format.dns1123LabelPrefix -> kubernetes.NamedFormat|. format.dns1123SubdomainPrefix -> kubernetes.NamedFormat|. format.dns1035LabelPrefix -> kubernetes.NamedFormat
. format.byte -> kubernetes.NamedFormat|. format.date -> kubernetes.NamedFormat|. format.datetime -> kubernetes.NamedFormat|kubernetes.NamedFormat validate string -> optional(list(string))
";

/// A URL by its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: Vec<(String, String)>,
}

/// A semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<String>,
}

/// Calls one of them; `None` when none has this name for these.
pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    let order = |order: Ordering| match name {
        "isLessThan" => Value::Bool(order.is_lt()),
        "isGreaterThan" => Value::Bool(order.is_gt()),
        _ => Value::Int(order as i64),
    };
    let read = |found: Option<Value<'v>>| found.map_or_else(|| failed(format!("{name}: the text cannot be read")), Ok);
    if let [Value::Check(_) | Value::Decision(_), ..] = args {
        return authorizer::call(name, args);
    }
    Some(Ok(match (name, args) {
        // One pass: what stands for a slash is not escaped again.
        ("jsonpatch.escapeKey", [Value::Text(text)]) => Value::text(text.replace('~', "~0").replace('/', "~1")),
        ("quantity", [Value::Text(text)]) => return Some(read(text.parse().ok().map(Value::Quantity))),
        ("isQuantity", [Value::Text(text)]) => Value::Bool(text.parse::<Quantity>().is_ok()),
        (_, [Value::Quantity(own), rest @ ..]) => return quantity(name, *own, rest, &order),
        ("ip", [Value::Text(text)]) => return Some(read(address(text).map(Value::Ip))),
        ("ip.isCanonical", [Value::Text(text)]) => match address(text) {
            Some(ip) => Value::Bool(ip.to_string() == **text),
            None => return Some(read(None)),
        },
        ("isIP", [Value::Text(text)]) => Value::Bool(address(text).is_some()),
        ("isIP", [Value::Text(text), Value::Int(family)]) => Value::Bool(address(text).is_some_and(|ip| family_of(ip) == *family)),
        (_, [Value::Ip(own)]) => return about(name, *own).map(Ok),
        ("cidr", [Value::Text(text)]) => return Some(read(network(text).map(|(ip, bits)| Value::Cidr(ip, bits)))),
        ("isCIDR", [Value::Text(text)]) => Value::Bool(network(text).is_some()),
        ("ip", [Value::Cidr(ip, _)]) => Value::Ip(*ip),
        ("prefixLength", [Value::Cidr(_, bits)]) => Value::Int(i64::from(*bits)),
        ("masked", [Value::Cidr(ip, bits)]) => Value::Cidr(masked(*ip, *bits), *bits),
        ("containsIP", [Value::Cidr(net, bits), Value::Ip(ip)]) => Value::Bool(holds(*net, *bits, *ip, u8::MAX)),
        ("containsIP", [Value::Cidr(net, bits), Value::Text(text)]) => match address(text) {
            Some(ip) => Value::Bool(holds(*net, *bits, ip, u8::MAX)),
            None => return Some(read(None)),
        },
        ("containsCIDR", [Value::Cidr(net, bits), Value::Cidr(ip, own)]) => Value::Bool(holds(*net, *bits, *ip, *own)),
        ("containsCIDR", [Value::Cidr(net, bits), Value::Text(text)]) => match network(text) {
            Some((ip, own)) => Value::Bool(holds(*net, *bits, ip, own)),
            None => return Some(read(None)),
        },
        ("url", [Value::Text(text)]) => return Some(read(url(text).map(|u| Value::Url(Rc::new(u))))),
        ("isURL", [Value::Text(text)]) => Value::Bool(url(text).is_some()),
        (_, [Value::Url(own)]) => return part_of_url(name, own).map(Ok),
        ("semver", [Value::Text(text), rest @ ..]) => return Some(read(semver(text, is_lenient(rest)).map(|v| Value::Semver(Rc::new(v))))),
        ("isSemver", [Value::Text(text), rest @ ..]) => Value::Bool(semver(text, is_lenient(rest)).is_some()),
        ("major", [Value::Semver(own)]) => number(own.numbers[0]),
        ("minor", [Value::Semver(own)]) => number(own.numbers[1]),
        ("patch", [Value::Semver(own)]) => number(own.numbers[2]),
        ("isLessThan" | "isGreaterThan" | "compareTo", [Value::Semver(a), Value::Semver(b)]) => order(compare(a, b)),
        ("format.named", [Value::Text(text)]) => {
            Value::Optional(FORMATS.into_iter().find(|f| *f == &**text).map(|f| Rc::new(Value::Format(f))))
        }
        (named, []) if named.starts_with("format.") => {
            Value::Format(FORMATS.into_iter().find(|f| named.strip_prefix("format.") == Some(*f))?)
        }
        ("validate", [Value::Format(format), Value::Text(text)]) => {
            Value::Optional(wrong(format, text).map(|why| Rc::new(Value::List([Value::text(why)].into()))))
        }
        _ => return None,
    }))
}

const FORMATS: [&str; 13] = [
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

fn wrong(format: &str, text: &str) -> Option<String> {
    match format {
        "dns1123Label" => names::dns_label(text).err(),
        "dns1123Subdomain" => names::dns_subdomain(text).err(),
        "dns1035Label" => names::dns_1035_label(text).err(),
        // What a generated name is made of may end where the random part begins.
        "dns1123LabelPrefix" => names::dns_label(&prefix(text)).err(),
        "dns1123SubdomainPrefix" => names::dns_subdomain(&prefix(text)).err(),
        "dns1035LabelPrefix" => names::dns_1035_label(&prefix(text)).err(),
        "qualifiedName" => names::qualified(text).err(),
        "labelValue" => names::label_value(text).err(),
        other => (!has_format(other, text)).then(|| format!("must be a valid {other}")),
    }
}

/// With a letter for a last dash.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) => format!("{rest}a"),
        None => text.to_owned(),
    }
}

fn number(n: u64) -> Value<'static> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn is_lenient(rest: &[Value<'_>]) -> bool {
    matches!(rest, [Value::Bool(true)])
}

fn quantity<'v>(name: &str, own: Quantity, rest: &[Value<'v>], order: &dyn Fn(Ordering) -> Value<'v>) -> Option<Answer<'v>> {
    let whole = || Quantity::from_units(own.units()) == own;
    Some(Ok(match (name, rest) {
        ("isInteger", []) => Value::Bool(whole()),
        ("asInteger", []) if whole() => Value::Int(own.units()),
        ("asInteger", []) => return Some(failed("cannot convert value to integer")),
        #[expect(clippy::cast_precision_loss, reason = "approximate, as its name says")]
        ("asApproximateFloat", []) => Value::Double(if whole() { own.units() as f64 } else { own.millis() as f64 / 1000.0 }),
        ("sign", []) => Value::Int(i64::from(own.signum())),
        ("add", [Value::Quantity(other)]) => Value::Quantity(own.plus(*other)),
        ("sub", [Value::Quantity(other)]) => Value::Quantity(own.minus(*other)),
        ("add", [Value::Int(n)]) => Value::Quantity(own.plus(Quantity::from_units(*n))),
        ("sub", [Value::Int(n)]) => Value::Quantity(own.minus(Quantity::from_units(*n))),
        ("isLessThan" | "isGreaterThan" | "compareTo", [Value::Quantity(other)]) => order(own.cmp(other)),
        _ => return None,
    }))
}

/// An address without zone, and no IPv4 one in IPv6's clothes.
fn address(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    (!matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())).then_some(ip)
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits): (IpAddr, u8) = (address(ip)?, bits.parse().ok()?);
    (bits <= width(ip)).then_some((ip, bits))
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn family_of(ip: IpAddr) -> i64 {
    if ip.is_ipv4() { 4 } else { 6 }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(u32::from(32 - bits.min(32))).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(u32::from(128 - bits.min(128))).unwrap_or(0)).into()),
    }
}

fn holds(net: IpAddr, bits: u8, ip: IpAddr, own: u8) -> bool {
    net.is_ipv4() == ip.is_ipv4() && own >= bits && masked(net, bits) == masked(ip, bits)
}

fn about(name: &str, ip: IpAddr) -> Option<Value<'static>> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let local_multicast = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    Some(Value::Bool(match name {
        "family" => return Some(Value::Int(family_of(ip))),
        "isUnspecified" => ip.is_unspecified(),
        "isLoopback" => ip.is_loopback(),
        "isLinkLocalUnicast" => link_local,
        "isLinkLocalMulticast" => local_multicast,
        "isGlobalUnicast" => {
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
        }
        _ => return None,
    }))
}

/// An absolute URL or an absolute path.
fn url(text: &str) -> Option<Url> {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let text = text.split('#').next().unwrap_or_default();
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = match before.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => (scheme, rest),
        _ if before.starts_with('/') => ("", before),
        _ => return None,
    };
    let plain = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !plain || scheme.starts_with(|c: char| !c.is_ascii_alphabetic()) {
        return None;
    }
    let (authority, path) = if scheme.is_empty() { ("", rest) } else { rest.split_at(rest.find('/').unwrap_or(rest.len())) };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = host.rsplit_once(':').filter(|(before, _)| !before.starts_with('[') || before.ends_with(']')).map(|(_, port)| port);
    if port.is_some_and(|port| !port.chars().all(|c| c.is_ascii_digit())) {
        return None;
    }
    let pairs = query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
    let query = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Some(Url { scheme: scheme.to_ascii_lowercase(), host: host.into(), path: path.into(), query })
}

fn part_of_url<'v>(name: &str, url: &Url) -> Option<Value<'v>> {
    let split = || match url.host.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => (host, port),
        _ => (url.host.as_str(), ""),
    };
    Some(match name {
        "getScheme" => Value::text(&url.scheme),
        "getHost" => Value::text(&url.host),
        "getHostname" => Value::text(split().0.trim_start_matches('[').trim_end_matches(']')),
        "getPort" => Value::text(split().1),
        "getEscapedPath" => Value::text(&url.path),
        "getQuery" => {
            let mut keys: Vec<&str> = url.query.iter().map(|(k, _)| k.as_str()).collect();
            keys.sort_unstable();
            keys.dedup();
            let of = |key: &str| url.query.iter().filter(|(k, _)| k == key).map(|(_, v)| Value::text(v)).collect();
            Value::Map(keys.into_iter().map(|key| (Value::text(key), Value::List(of(key)))).collect())
        }
        _ => return None,
    })
}

fn semver(text: &str, lenient: bool) -> Option<Semver> {
    let text = if lenient { text.trim().trim_start_matches('v') } else { text };
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
    let mut parts: Vec<&str> = core.split('.').collect();
    if lenient {
        parts.resize(parts.len().max(3), "0");
    }
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let digits = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_digit());
    let no_zero = |w: &str| lenient || w.len() == 1 || !w.starts_with('0');
    if parts.len() != 3 || !parts.iter().all(|p| digits(p) && no_zero(p)) || !build.is_none_or(|b| b.split('.').all(word)) {
        return None;
    }
    let before: Vec<String> = before.map(|b| b.split('.').map(str::to_owned).collect()).unwrap_or_default();
    if !before.iter().all(|w| word(w) && !(digits(w) && w.len() > 1 && w.starts_with('0'))) {
        return None;
    }
    let [major, minor, patch] = [parts[0], parts[1], parts[2]].map(|p| p.parse().ok());
    Some(Semver { numbers: [major?, minor?, patch?], before })
}

fn compare(a: &Semver, b: &Semver) -> Ordering {
    let words = || {
        for (x, y) in a.before.iter().zip(&b.before) {
            let order = match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => x.cmp(y),
            };
            if order.is_ne() {
                return order;
            }
        }
        a.before.len().cmp(&b.before.len())
    };
    a.numbers.cmp(&b.numbers).then_with(|| b.before.is_empty().cmp(&a.before.is_empty()).reverse().then_with(words))
}
