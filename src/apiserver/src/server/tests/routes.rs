//! Methods, slashes and escapes of paths, as upstream's frameworks take them.

use http::header::{ALLOW, CACHE_CONTROL};

use super::*;

const NOT_FOUND: &str = "404 page not found\n";
const NOT_ALLOWED: &str = r#""reason":"MethodNotAllowed""#;

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods() {
    let dir = tempfile::tempdir().unwrap();
    let (_, server) = start(dir.path()).await;
    let user = User { name: "admin".into(), groups: vec![masters::GROUP.into()], ..User::default() };
    let pod = "/api/v1/namespaces/default/pods/none";
    let cases = [
        ("GET", "/", 200, "\"/apis/apps/v1\""),
        ("GET", "/index.html", 200, "\"paths\""),
        ("GET", "/version", 200, "v1.36"),
        ("GET", "/version/", 200, "v1.36"),
        ("HEAD", "/version", 405, ""),
        ("POST", "/version", 405, NOT_ALLOWED),
        ("GET", "/versions", 404, NOT_FOUND),
        ("GET", "/api", 200, "APIVersions"),
        ("GET", "/api/", 200, "APIVersions"),
        ("PUT", "/api", 405, NOT_ALLOWED),
        ("GET", "/api/v1", 200, "APIResourceList"),
        ("GET", "/api/v1/", 200, "APIResourceList"),
        ("GET", "/api/v9", 404, NOT_FOUND),
        ("GET", "/apis/apps/", 200, "APIGroup"),
        ("POST", "/apis/apps", 405, NOT_ALLOWED),
        ("GET", "/apis/apps/v1/", 200, "APIResourceList"),
        ("GET", "/apis/apps/v9", 404, NOT_FOUND),
        ("GET", "/apis/apps%2Fv1", 404, NOT_FOUND),
        ("GET", "/apis/%FF", 404, NOT_FOUND),
        ("GET", "/apis/ap%70s", 200, "APIGroup"),
        ("POST", "/healthz", 200, "ok"),
        ("HEAD", "/healthz", 200, ""),
        ("GET", "/healthz/", 404, NOT_FOUND),
        ("GET", "/livez/ping", 200, "ok"),
        ("GET", "/readyz/poststarthook/rbac/bootstrap-roles", 200, "ok"),
        ("GET", "/livez/poststarthook/rbac/bootstrap-roles", 404, NOT_FOUND),
        ("GET", "/readyz/nope", 404, NOT_FOUND),
        ("GET", "/metrics", 200, "apiserver_request_total"),
        ("GET", "/metrics/", 404, NOT_FOUND),
        ("HEAD", "/readyz?exclude=ping", 200, ""),
        ("GET", "/metrics/slis", 200, "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1"),
        ("GET", "/openapi/v3", 200, "apis/apps/v1"),
        ("GET", "/openapi/v3/", 404, NOT_FOUND),
        ("GET", "/openapi/v3/apis/storage.k8s.io/v1", 200, "StorageClass"),
        ("GET", "/openapi/v3/apis/storage.k8s.io/v9", 404, NOT_FOUND),
        ("GET", "/.well-known/openid-configuration", 200, "jwks_uri"),
        ("GET", "/openid/v1/jwks/", 200, "keys"),
        ("DELETE", "/openid/v1/jwks", 405, NOT_ALLOWED),
        ("GET", "/nope/deep", 404, NOT_FOUND),
        ("GET", "/apis/none.test/v1/things", 404, NOT_FOUND),
        ("GET", "/api/v1/pods", 200, "PodList"),
        ("HEAD", "/api/v1/pods", 405, ""),
        ("GET", "/api/v1/namespaces/..", 400, "BadRequest"),
        ("GET", &format!("{pod}/log"), 404, "NotFound"),
        ("DELETE", &format!("{pod}/log"), 405, NOT_ALLOWED),
        ("POST", &format!("{pod}/exec"), 404, "NotFound"),
        ("PUT", &format!("{pod}/exec"), 405, NOT_ALLOWED),
        ("HEAD", &format!("{pod}/proxy"), 404, ""),
        ("OPTIONS", &format!("{pod}/proxy"), 404, "NotFound"),
    ];
    for (method, path, code, text) in cases {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::new())).unwrap();
        let answer = server.local(user.clone()).oneshot(request).await.unwrap();
        let what = format!("{method} {path}");
        assert_eq!(answer.status().as_u16(), code, "{what}");
        assert_eq!(answer.headers().contains_key(ALLOW), code == 405, "{what}");
        assert!(answer.headers().contains_key("audit-id") && answer.headers().contains_key(CACHE_CONTROL), "{what}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        assert!(if text.is_empty() || text == NOT_FOUND { body == text } else { body.contains(text) }, "{what}: {body}");
    }
    server.shutdown().await;
}
