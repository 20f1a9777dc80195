//! Where requests go, and what is said of those that go nowhere.

use serde_json::json;

use super::*;
use crate::{objects::PodRecord, request::RequestInfo, request_info};

#[derive(Debug)]
struct Given;

#[async_trait::async_trait]
impl Objects for Given {
    async fn appears(&self, group: &str, resource: &str, namespace: &str, name: &str, _: std::time::Duration) -> Option<Value> {
        self.get(group, resource, namespace, name)
    }

    fn get(&self, _: &str, resource: &str, _: &str, name: &str) -> Option<Value> {
        let pod = |node: &str, containers: Value| json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node, "containers": containers}, "status": {"podIP": "10.42.0.5"}});
        match (resource, name) {
            ("pods", "web") => Some(pod("n", json!([{"name": "c", "ports": [{"containerPort": 8080, "name": "http"}]}]))),
            ("pods", "two") => Some(pod("n", json!([{"name": "c"}, {"name": "d"}]))),
            ("pods", "new") => Some(pod("", json!([{"name": "c"}]))),
            ("nodes", "n") => {
                Some(json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "fd00::1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}}}}))
            }
            ("services", "web") => Some(json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "x", "port": 81}]}})),
            _ => None,
        }
    }

    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Value> {
        vec![json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.42.0.9"], "conditions": {"ready": false}}, {"addresses": ["10.42.0.5"]}]})]
    }

    fn version(&self, _: &str, _: &str) -> u64 {
        0
    }

    fn pods_on(&self, _: &str, _: &str) -> Vec<PodRecord> {
        Vec::new()
    }
}

fn ask(uri: &str) -> Result<String, String> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let info: RequestInfo = request_info::parse(&http::Method::GET, path, &query).unwrap();
    let cx = Context {
        user: Default::default(),
        info,
        query,
        method: http::Method::GET,
        headers: Default::default(),
        warnings: Default::default(),
        audit: Default::default(),
    };
    match find(&Given, &cx) {
        Ok(target) => Ok(format!("{:?} {}{}", target.scheme, target.authority(), target.path)),
        Err(status) => Err(format!("{} {}", status.code, status.message)),
    }
}

#[test]
fn targets() {
    for (uri, target) in [
        (
            "/api/v1/namespaces/a/pods/web/log?follow=true&tailLines=5&x=y",
            "Node [fd00::1]:10260/containerLogs/a/web/c?follow=true&tailLines=5",
        ),
        ("/api/v1/namespaces/a/pods/two/log?container=d", "Node [fd00::1]:10260/containerLogs/a/two/d"),
        (
            "/api/v1/namespaces/a/pods/web/exec?command=sh&command=-c&command=a+b&stdin=true&stdout=true&stderr=false&tty=1",
            "Node [fd00::1]:10260/exec/a/web/c?command=sh&command=-c&command=a+b&input=1&output=1&tty=1",
        ),
        ("/api/v1/namespaces/a/pods/web/attach?stdout=1", "Node [fd00::1]:10260/attach/a/web/c?output=1"),
        ("/api/v1/namespaces/a/pods/web/portforward?ports=80&ports=81&x=1", "Node [fd00::1]:10260/portForward/a/web?port=80&port=81"),
        ("/api/v1/nodes/n/proxy/stats/summary?only=cpu", "Node [fd00::1]:10260/stats/summary?only=cpu"),
        ("/api/v1/nodes/n:1234/proxy/", "Node [fd00::1]:1234/"),
        ("/api/v1/namespaces/a/pods/web/proxy/x/y", "Http 10.42.0.5:8080/x/y"),
        ("/api/v1/namespaces/a/pods/https:web:http/proxy", "Https 10.42.0.5:8080/"),
        ("/api/v1/namespaces/a/services/web:80/proxy/", "Http 10.42.0.5:8080/"),
        ("/api/v1/namespaces/a/services/web:http/proxy/", "Http 10.42.0.5:8080/"),
    ] {
        assert_eq!(ask(uri).as_deref(), Ok(target), "{uri}");
    }
}

#[test]
fn refusals() {
    for (uri, why) in [
        ("/api/v1/namespaces/a/pods/gone/log", "404 pods \"gone\" not found"),
        ("/api/v1/namespaces/a/pods/new/log", "400 pod new does not have a host assigned"),
        ("/api/v1/namespaces/a/pods/two/log", "400 a container name must be specified for pod two, choose one of: [c d]"),
        ("/api/v1/namespaces/a/pods/two/attach?stdout=1", "400 a container name must be specified for pod two, choose one of: [c d]"),
        ("/api/v1/namespaces/a/pods/web/exec?container=x", "400 container x is not valid for pod web"),
        ("/api/v1/namespaces/a/services/web:x/proxy/", "503 no endpoints available for service \"web\""),
        ("/api/v1/namespaces/a/services/web:99/proxy/", "503 no service port \"99\" found for service \"web\""),
    ] {
        assert_eq!(ask(uri).unwrap_err(), why, "{uri}");
    }
}
