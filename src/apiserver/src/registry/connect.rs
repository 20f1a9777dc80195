//! CONNECT: exec, attach, port-forward and proxies are answered elsewhere, but plugins may refuse them.

use coracle_api::status::Status;
use serde_json::{Map, Value, json};

use super::{Registry, target::Target, write::Write};
use crate::{
    admission::Operation,
    request::{Context, RequestInfo},
};

/// Parameters of exec and attach that are on or off.
const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

impl Registry {
    /// Lets the plugins refuse a connection to a pod, a service or a node.
    pub(crate) async fn connect(&self, cx: &Context) -> Result<(), Status> {
        let inner = &self.inner;
        // Logs are only read.
        if inner.admission.is_empty() || cx.info.subresource == "log" {
            return Ok(());
        }
        // A proxy's name may say a scheme and a port, which no object's name can.
        let nameless = RequestInfo { name: String::new(), ..cx.info.clone() };
        let target = Target::find(&inner.catalogue.now(), &inner.cache, &nameless)?;
        let target = Target { name: cx.info.name.clone(), ..target };
        let Some(part) = target.resource.subresource(&cx.info.subresource) else { return Ok(()) };
        let mut options = options(&part.kind, cx);
        Write { inner, target: &target, cx, admitted: false, dry_run: false }.admit(Operation::Connect, &mut options).await
    }
}

/// The parameters of a connection as the object that upstream makes of them.
fn options(kind: &str, cx: &Context) -> Value {
    let mut out = Map::new();
    out.insert("kind".into(), kind.into());
    out.insert("apiVersion".into(), "v1".into());
    let all = |name: &str| -> Vec<&str> { cx.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect() };
    match cx.info.subresource.as_str() {
        "exec" | "attach" => {
            for flag in FLAGS {
                if cx.param(flag).is_some_and(|value| !matches!(value, "" | "0" | "false")) {
                    out.insert(flag.into(), true.into());
                }
            }
            if let Some(container) = cx.param("container").filter(|container| !container.is_empty()) {
                out.insert("container".into(), container.into());
            }
            let command = all("command");
            if !command.is_empty() {
                out.insert("command".into(), json!(command));
            }
        }
        "portforward" => {
            let ports: Vec<u16> = all("ports").iter().filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                out.insert("ports".into(), json!(ports));
            }
        }
        _ => {
            let path = match (cx.info.rest.as_str(), cx.param("path")) {
                ("", path) => path.unwrap_or_default().to_owned(),
                (rest, _) => format!("/{rest}"),
            };
            if !path.is_empty() {
                out.insert("path".into(), path.into());
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subresource: &str, rest: &str, query: &[(&str, &str)]) -> Value {
        let info = RequestInfo { subresource: subresource.into(), rest: rest.into(), ..RequestInfo::default() };
        let query = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (user, headers) = (crate::request::User::default(), http::HeaderMap::new());
        let cx =
            Context { user, info, query, method: http::Method::POST, headers, warnings: Default::default(), audit: Default::default() };
        let mut out = options("K", &cx);
        let map = out.as_object_mut().expect("a map");
        map.remove("kind");
        map.remove("apiVersion");
        out
    }

    #[test]
    fn parameters_become_options() {
        let exec = asked("exec", "", &[("command", "sh"), ("command", "-c"), ("stdin", "true"), ("tty", "false"), ("container", "c")]);
        assert_eq!(exec, json!({"command": ["sh", "-c"], "stdin": true, "container": "c"}));
        assert_eq!(asked("portforward", "", &[("ports", "80"), ("ports", "x")]), json!({"ports": [80]}));
        assert_eq!(asked("proxy", "a/b", &[]), json!({"path": "/a/b"}));
        assert_eq!(asked("proxy", "", &[]), json!({}));
    }
}
