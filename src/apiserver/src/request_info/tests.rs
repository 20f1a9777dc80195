//! Upstream's table of paths, and what it leaves out.

use super::*;

fn read(method: &str, uri: &str) -> RequestInfo {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    parse(&method.parse().unwrap(), path, &query).unwrap()
}

#[test]
fn resource_paths() {
    // method, uri, verb, group, version, namespace, resource, subresource, name
    let cases = [
        ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
        ("GET", "/api/v1/namespaces/other", "get", "", "v1", "other", "namespaces", "", "other"),
        ("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", ""),
        ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
        ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
        ("POST", "/api/v1/pods", "create", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/namespaces/other/pods/foo/status", "get", "", "v1", "other", "pods", "status", "foo"),
        ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "v1", "other", "namespaces", "finalize", "other"),
        ("PUT", "/api/v1/namespaces/other/status", "update", "", "v1", "other", "namespaces", "status", "other"),
        ("GET", "/api/v1/watch/namespaces/other/pods", "watch", "", "v1", "other", "pods", "", ""),
        ("GET", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=1", "watch", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=0", "list", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/namespaces/other/pods/foo?watch=1", "get", "", "v1", "other", "pods", "", "foo"),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", "", "v1", "other", "pods", "", "foo"),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo/status", "proxy", "", "v1", "other", "pods", "", "foo"),
        ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch", "", "v1", "other", "pods", "", "foo"),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "v1", "other", "pods", "", "foo"),
        ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", ""),
        ("DELETE", "/api/v1/nodes", "deletecollection", "", "v1", "", "nodes", "", ""),
        ("GET", "/apis/apps/v1/deployments", "list", "apps", "v1", "", "deployments", "", ""),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/b/scale", "update", "apps", "v1", "a", "deployments", "scale", "b"),
        ("GET", "/apis/extensions/v1beta3/namespaces/other/pods", "list", "extensions", "v1beta3", "other", "pods", "", ""),
        ("GET", "/api/v1/namespaces/a/secrets/x%2Fy", "get", "", "v1", "a", "secrets", "y", "x"),
        ("GET", "//api/v1//pods/", "list", "", "v1", "", "pods", "", ""),
    ];
    for (method, uri, verb, group, version, namespace, resource, subresource, name) in cases {
        let info = read(method, uri);
        assert!(info.is_resource, "{uri}");
        let seen = [&info.verb, &info.group, &info.version, &info.namespace, &info.resource, &info.subresource, &info.name];
        assert_eq!(seen, [verb, group, version, namespace, resource, subresource, name].map(str::to_owned).each_ref(), "{method} {uri}");
    }
}

#[test]
fn other_paths() {
    for path in
        ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/version", "/a/b/c/d", "/openapi/v3/apis/apps/v1"]
    {
        let info = read("GET", path);
        assert!(!info.is_resource, "{path}");
        assert_eq!((info.verb.as_str(), info.path.as_str()), ("get", path));
    }
}

#[test]
fn what_follows_the_subresource() {
    for (path, rest) in [
        ("/api/v1/namespaces/a/pods/web/proxy/x/y", "x/y"),
        ("/api/v1/namespaces/a/pods/web/proxy/", ""),
        ("/api/v1/namespaces/a/pods/web/proxy", ""),
        ("/api/v1/nodes/n/proxy/logs/a%20b/", "logs/a%20b/"),
        ("/api/v1/namespaces/a/services/https:web:443/proxy//x", "/x"),
    ] {
        assert_eq!(read("GET", path).rest, rest, "{path}");
    }
}

#[test]
fn a_prefix_verb_needs_a_resource() {
    for path in ["/api/v1/watch", "/apis/apps/v1/proxy"] {
        assert!(parse(&Method::GET, path, &[]).is_err(), "{path}");
    }
}

#[test]
fn a_field_selector_names_the_object() {
    for (selector, name) in [
        ("metadata.name=web", Some("web")),
        ("metadata.name==web", Some("web")),
        ("a=b,metadata.name=web", Some("web")),
        ("metadata.name!=web", None),
        ("metadata.name=a/b", None),
        ("metadata.name=", None),
    ] {
        assert_eq!(selected_name(&[("fieldSelector".into(), selector.into())]), name, "{selector}");
    }
}
