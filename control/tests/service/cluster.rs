//! Which node a scope is on, over HTTP.

use serde_json::Value;

use crate::Service;

async fn resolve(service: &Service, query: &str, accept: Option<&str>) -> reqwest::Response {
    let request = reqwest::Client::new().get(service.url(&format!("/resolve?{query}")));
    let request = match accept {
        Some(accept) => request.header("accept", accept),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_alone_answers_with_itself() {
    let service = Service::start().await;
    let here = service.address().to_string();
    let lobby = "applicationId=dev&scopeId=lobby";
    for accept in [None, Some("*/*"), Some("text/plain")] {
        let answer = resolve(&service, lobby, accept).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert_eq!(answer.text().await.unwrap(), here);
    }
    let answer = resolve(&service, lobby, Some("application/json")).await.text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["endpoint"], here);
    assert_eq!(answer["https"], format!("http://{here}"));
    assert_eq!(answer["link"], here);
    assert_eq!(answer["name"], "alone");
    // A report of itself is looked into, and found wrong; one of anybody else is not.
    for reported in [here.as_str(), "169.254.169.254:80"] {
        let query = format!("{lobby}&reconnect=true&streamerEndpoint={reported}");
        assert_eq!(resolve(&service, &query, None).await.text().await.unwrap(), here);
    }
    let metrics = reqwest::get(service.url("/metrics")).await.unwrap().text().await.unwrap();
    for line in [
        "control_cluster_reports_unknown_total 1",
        "control_cluster_nodes{state=\"ready\"} 1",
        "control_cluster_partitions_up 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    service.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_question_has_its_answer() {
    let service = Service::start_with(|config| config.cluster.resolves_per_second = 4).await;
    for (query, status, word) in [
        ("scopeId=a", 400, "applicationId"),
        ("applicationId=dev", 400, "scopeId"),
        ("applicationId=dev&scopeId=", 400, "scopeId"),
        ("applicationId=dev&scopeId=a%0Ab", 400, "control characters"),
        ("applicationId=acme&scopeId=a", 404, "acme"),
    ] {
        let answer = resolve(&service, query, None).await;
        assert_eq!(answer.status(), status, "{query}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(word), "{query}: {text}");
    }
    service.add_application("acme").await;
    assert_eq!(resolve(&service, "applicationId=acme&scopeId=a", None).await.status(), 200);
    let mut last = 200;
    for _ in 0..100 {
        let answer = resolve(&service, "applicationId=acme&scopeId=a", None).await;
        last = answer.status().as_u16();
        if last == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            break;
        }
    }
    assert_eq!(last, 429);
    service.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_a_node_is_known_by_its_incarnation() {
    let service = Service::start().await;
    let livez = async |query: &str| {
        let answer = reqwest::get(service.url(&format!("/livez{query}"))).await.unwrap();
        answer.status().as_u16()
    };
    let incarnation = service.server.app.cluster.me().incarnation.clone();
    assert_eq!(livez("").await, 200);
    assert_eq!(livez(&format!("?incarnation={incarnation}")).await, 200);
    assert_eq!(livez("?incarnation=0123").await, 409);
    service.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_role_nobody_is_told() {
    use strait_control::config::cluster::Role;
    let service = Service::start_with(|config| config.cluster.roles = vec![Role::Node]).await;
    let answer = resolve(&service, "applicationId=dev&scopeId=lobby", None).await;
    assert_eq!(answer.status(), 404);
    assert!(answer.text().await.unwrap().contains("cluster.roles"));
    service.server.stop().await;
}
