//! Groups that another server answers for: an extension API server behind a Service without selector, from its first word to its end.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream, UdpSocket},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_tests::{Kubectl, Server, extension::Extension, http::Proxy};
use serde_json::{Value, json};

const FLUNDERS: &str = "/apis/wardle.test/v1/namespaces/default/flunders";

/// An address of this machine that is not its loopback, which endpoints may not have. Nothing is sent to find it.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("this machine has an address besides its loopback");
    socket.local_addr().expect("bound").ip()
}

fn api_service(authority: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.wardle.test"},
        "spec": {"group": "wardle.test", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 20,
            "service": {"namespace": "default", "name": "wardle", "port": 7443},
            "caBundle": STANDARD.encode(authority)}})
}

fn endpoints(address: IpAddr, port: u16) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "wardle-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "wardle"}},
        "ports": [{"name": "", "port": port, "protocol": "TCP"}], "endpoints": [{"addresses": [address.to_string()]}]})
}

/// kubectl as the extension API server has it: with the token of its ServiceAccount and nothing else.
fn delegate(kubectl: &Kubectl, directory: &Path) -> Kubectl {
    kubectl.ok(&["create", "serviceaccount", "wardle"]);
    kubectl.ok(&["create", "clusterrolebinding", "wardle", "--clusterrole=system:auth-delegator", "--serviceaccount=default:wardle"]);
    kubectl.ok(&[
        "create",
        "rolebinding",
        "wardle",
        "--namespace=kube-system",
        "--role=extension-apiserver-authentication-reader",
        "--serviceaccount=default:wardle",
    ]);
    let token = kubectl.ok(&["create", "token", "wardle"]);
    let config: Value = serde_json::from_str(&kubectl.ok(&["config", "view", "--raw", "--minify", "--output=json"])).expect("JSON");
    let own = json!({"apiVersion": "v1", "kind": "Config", "current-context": "own", "clusters": config["clusters"],
        "users": [{"name": "own", "user": {"token": token.trim()}}],
        "contexts": [{"name": "own", "context": {"cluster": config["clusters"][0]["name"], "user": "own"}}]});
    let path = directory.join("wardle.kubeconfig");
    std::fs::write(&path, own.to_string()).expect("written");
    Kubectl::new(&path)
}

fn created(kubectl: &Kubectl, object: &Value) -> Value {
    let answer = kubectl.stdin(&["create", "--validate=false", "--output=json", "--filename=-"], &object.to_string());
    serde_json::from_str(&answer).expect("JSON")
}

fn flunder(name: &str) -> Value {
    json!({"apiVersion": "wardle.test/v1", "kind": "Flunder", "metadata": {"name": name}, "size": "3"})
}

fn reason(kubectl: &Kubectl, wanted: &str) {
    kubectl.wait("apiservice/v1.wardle.test", &format!("jsonpath={{.status.conditions[?(@.type==\"Available\")].reason}}={wanted}"));
}

#[test]
fn an_extension_api_server_comes_serves_fails_and_goes() {
    let server = Server::start(&["--disable-agent"]);
    let (kubectl, proxy) = (server.kubectl(), Proxy::start(&server.kubectl()));
    let get = |path: &str| proxy.ask("GET", path, "application/json", b"");
    served_here(&kubectl);

    let own = delegate(&kubectl, server.data_dir());
    let map = own.ok(&["get", "configmap", "extension-apiserver-authentication", "--namespace=kube-system", "--output=json"]);
    let map: Value = serde_json::from_str(&map).expect("JSON");
    let clients = map["data"]["requestheader-client-ca-file"].as_str().expect("an authority").to_owned();
    let asks = own.clone();
    let may = move |user: &str, groups: &[String]| {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": user, "groups": groups,
            "resourceAttributes": {"group": "wardle.test", "resource": "flunders", "verb": "create", "namespace": "default"}}});
        created(&asks, &review)["status"]["allowed"] == true
    };
    assert!(!may("bob", &[]), "nobody has given bob anything");
    let extension = Extension::start("wardle.default.svc", &clients, may);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": kubectl.ok(&["create", "token", "wardle"]).trim()}});
    assert_eq!(created(&own, &review)["status"]["user"]["username"], "system:serviceaccount:default:wardle");

    // Step by step it becomes available, and says what is missing.
    assert_eq!(get("/apis/wardle.test").0, 404);
    kubectl.apply(&api_service(&extension.authority).to_string());
    reason(&kubectl, "ServiceNotFound");
    assert_eq!(get(FLUNDERS).0, 503);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "wardle", "namespace": "default"},
        "spec": {"ports": [{"port": 7443, "protocol": "TCP"}]}});
    kubectl.apply(&service.to_string());
    reason(&kubectl, "EndpointsNotFound");
    kubectl.apply(&endpoints(own_address(), extension.address.port()).to_string());
    kubectl.wait("apiservice/v1.wardle.test", "condition=Available");
    reason(&kubectl, "Passed");

    listed(&kubectl, &proxy, &get);
    used(&kubectl, &proxy);
    documented(&kubectl, &get);

    extension.down();
    assert_eq!(get(FLUNDERS).0, 503);
    reason(&kubectl, "FailedDiscoveryCheck");
    assert_eq!(get(FLUNDERS).0, 503);
    kubectl.ok(&["get", "configmaps", "--all-namespaces"]);
    assert_eq!(aggregated(&proxy)["freshness"], "Stale");
    extension.up();
    kubectl.wait("apiservice/v1.wardle.test", "condition=Available");
    assert!(kubectl.ok(&["get", "flunders"]).contains("first"));

    kubectl.ok(&["delete", "apiservice", "v1.wardle.test"]);
    while get("/apis/wardle.test").0 != 404 {
        std::thread::yield_now();
    }
    assert_eq!(get(FLUNDERS).0, 404);
}

/// Every group has an APIService, also those of definitions, as long as these are there.
fn served_here(kubectl: &Kubectl) {
    let apps = kubectl.ok(&["get", "apiservice", "v1.apps", "--no-headers"]);
    assert_eq!(apps.split_whitespace().take(3).collect::<Vec<_>>(), ["v1.apps", "Local", "True"]);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.sea.test"},
        "spec": {"group": "sea.test", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    kubectl.apply(&definition.to_string());
    kubectl.ok(&["wait", "apiservice/v1.sea.test", "--for=create", "--timeout=60s"]);
    kubectl.wait("apiservice/v1.sea.test", "condition=Available");
    let labels = kubectl.ok(&["get", "apiservice", "v1.sea.test", "--output=jsonpath={.metadata.labels}{.spec}"]);
    assert!(labels.contains("\"kube-aggregator.kubernetes.io/automanaged\":\"true\""), "{labels}");
    assert!(labels.contains("\"groupPriorityMinimum\":1000"), "{labels}");
    kubectl.ok(&["delete", "crd", "boats.sea.test"]);
    kubectl.ok(&["wait", "apiservice/v1.sea.test", "--for=delete", "--timeout=60s"]);
}

/// What the aggregated document tells of the one version.
fn aggregated(proxy: &Proxy) -> Value {
    let (_, document) = proxy.read_as("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let items = document["items"].as_array().expect("groups");
    items.iter().find(|item| item["metadata"]["name"] == "wardle.test").expect("it is listed")["versions"][0].clone()
}

/// Discovery in all its forms.
fn listed(kubectl: &Kubectl, proxy: &Proxy, get: &dyn Fn(&str) -> (u16, Value)) {
    let resources = kubectl.ok(&["api-resources", "--api-group=wardle.test", "--no-headers"]);
    assert_eq!(resources.split_whitespace().collect::<Vec<_>>(), ["flunders", "flu", "wardle.test/v1", "true", "Flunder"]);
    let (_, groups) = get("/apis");
    let names: Vec<&str> = groups["groups"].as_array().expect("groups").iter().filter_map(|group| group["name"].as_str()).collect();
    // By their priorities; metrics.k8s.io has the least.
    assert_eq!((names[0], &names[names.len() - 2..]), ("apiregistration.k8s.io", &["wardle.test", "metrics.k8s.io"][..]));
    let (code, group) = get("/apis/wardle.test");
    assert_eq!((code, &group["preferredVersion"]["groupVersion"]), (200, &json!("wardle.test/v1")));
    assert_eq!(get("/apis/wardle.test/v1").1["resources"][0]["name"], "flunders");
    let version = aggregated(proxy);
    assert_eq!((&version["freshness"], &version["resources"][0]["subresources"][0]["subresource"]), (&json!("Current"), &json!("echo")));
}

/// Objects and streams, each with the name of who asks.
fn used(kubectl: &Kubectl, proxy: &Proxy) {
    created(kubectl, &flunder("first"));
    assert!(kubectl.ok(&["get", "flunders"]).contains("first"));
    let mut watch = kubectl.follow(&["get", "flunders", "--watch", "--output=name"]);
    watch.see("flunder.wardle.test/first");
    kubectl.ok(&["create", "role", "flunderer", "--verb=create", "--resource=flunders.wardle.test"]);
    kubectl.ok(&["create", "rolebinding", "flunderer", "--role=flunderer", "--user=alice"]);
    let asks = ["create", "--validate=false", "--as=alice", "--as-group=dev", "--filename=-"];
    kubectl.stdin(&asks, &flunder("second").to_string());
    watch.see("flunder.wardle.test/second");
    let annotations = kubectl.ok(&["get", "flunder", "second", "--output=jsonpath={.metadata.annotations}"]);
    let annotations: Value = serde_json::from_str(&annotations).expect("JSON");
    assert_eq!(annotations, json!({"by": "alice", "groups": "dev,system:authenticated", "authorization": ""}));
    assert!(kubectl.fails(&["get", "flunders", "--as=alice"]).contains("forbidden"), "alice may only create");
    echoed(proxy);
}

/// What is upgraded passes both ways.
fn echoed(proxy: &Proxy) {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("the proxy listens");
    let head = format!("GET {FLUNDERS}/first/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend_from_slice(&byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"hello").expect("sent");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"hello");
}

/// OpenAPI of both versions.
fn documented(kubectl: &Kubectl, get: &dyn Fn(&str) -> (u16, Value)) {
    assert!(kubectl.ok(&["explain", "flunder.size"]).contains("in wardles"));
    let (_, index) = get("/openapi/v3");
    assert_eq!(index["paths"]["apis/wardle.test/v1"]["serverRelativeURL"], "/openapi/v3/apis/wardle.test/v1?hash=7");
    let (_, v2) = get("/openapi/v2");
    assert!(v2["definitions"]["test.wardle.v1.Flunder"].is_object() && v2["definitions"]["test.wardle.v1.Unused"].is_null());
    assert!(v2["paths"]["/apis/wardle.test/v1/namespaces/{namespace}/flunders"].is_object());
}
