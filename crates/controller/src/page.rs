//! The page that shows the fleet, built from `ui/` and part of the program.
//!
//! It loads nothing from anywhere else and runs no inline script; the headers say so, so that a
//! browser holds it to that.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// What a browser may do with the page: its own script, style and data, and nothing else.
const SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

struct Asset {
    path: &'static str,
    kind: &'static str,
    body: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        body: include_bytes!("../../../ui/dist/index.html"),
    },
    Asset {
        path: "/app.js",
        kind: "text/javascript; charset=utf-8",
        body: include_bytes!("../../../ui/dist/app.js"),
    },
    Asset {
        path: "/app.css",
        kind: "text/css; charset=utf-8",
        body: include_bytes!("../../../ui/dist/app.css"),
    },
    Asset {
        path: "/icon.svg",
        kind: "image/svg+xml",
        body: include_bytes!("../../../ui/dist/icon.svg"),
    },
];

/// Serves the page at `/`; it reads `/api/v1/status` beside it.
pub fn router() -> Router {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move || async move { response(asset) }))
    })
}

fn response(asset: &'static Asset) -> impl IntoResponse {
    let header = |name: HeaderName, value| (name, HeaderValue::from_static(value));
    let headers = [
        header(header::CONTENT_TYPE, asset.kind),
        header(header::CONTENT_SECURITY_POLICY, SECURITY),
        header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        header(header::REFERRER_POLICY, "no-referrer"),
        // A new version of the program is a new page.
        header(header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, asset.body)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn every_file_that_the_page_names_is_served_under_the_policy() {
        let html = std::str::from_utf8(ASSETS[0].body).expect("the page is UTF-8");
        let named = html.split(['"', '\'']).filter(|text| text.starts_with("app."));
        let mut paths: Vec<String> = named.map(|file| format!("/{file}")).collect();
        paths.extend(["/".to_owned(), "/icon.svg".to_owned()]);
        assert_eq!(paths.len(), 4);
        for path in paths {
            let request = Request::get(&path).body(Body::empty()).expect("a request");
            let answer = router().oneshot(request).await.expect("infallible");
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            let policy = &answer.headers()[header::CONTENT_SECURITY_POLICY];
            assert!(policy.to_str().is_ok_and(|text| text.starts_with("default-src 'none'")));
        }
        assert!(!html.contains("<style") && !html.contains("style="), "the policy forbids it");
    }
}
