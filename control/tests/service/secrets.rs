//! Passwords in addresses of servers: they are in no log, no error, no metric.

use strait_control::Config;
use strait_control::store::Store;

use crate::log::Log;
use crate::{Service, eventually};

const PASSWORD: &str = "hush-hush";

/// A port of this machine that nobody listens on.
fn closed() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_servers_are_nowhere_to_be_read() {
    let log = Log::take("trace");
    let port = closed();
    let service = Service::start_with(|config| {
        config.keys.master = format!("redis://u:{PASSWORD}@127.0.0.1:{port}").into();
        config.keys.replica = format!("redis+unix:/nowhere/redis.sock?pass={PASSWORD}").into();
    })
    .await;
    let counters = service.server.app.keys.counters();
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    eventually("both fail", || load(&counters.failed) > 0 && load(&counters.push_failed) > 0).await;
    let mut said = format!("{:?}", service.server.app.config);
    for path in ["/metrics", "/readyz?verbose", "/resolve?applicationId=a&scopeId=b"] {
        said += &reqwest::get(service.url(path)).await.unwrap().text().await.unwrap();
    }
    for url in [
        format!("mysql://strait:{PASSWORD}@127.0.0.1:{port}/strait"),
        format!("mysql://strait:{PASSWORD}@127.0.0.1:{PASSWORD}/strait"),
        format!("mysql://{PASSWORD}@127.0.0.1:{port}/strait?ssl-mode={PASSWORD}"),
        format!("postgres://strait@127.0.0.1:{port}/strait?password={PASSWORD}"),
        format!("postgres://strait@127.0.0.1:{port}/strait?pasword={PASSWORD}"),
        format!("postgres://strait@127.0.0.1:{port}/strait?port={PASSWORD}"),
        format!("sqlite:/proc/nothing/x.db?mode={PASSWORD}"),
        format!("sqlite:/proc/nothing/x.db?key={PASSWORD}"),
    ] {
        said += &Store::open(&url).await.err().expect("nobody is there").reason;
        let text = format!("[store]\nurl = '{url}'");
        said += &Config::parse(&text).map_or_else(|error| error.to_string(), |c| format!("{c:?}"));
    }
    for text in [
        format!("[keys]\nmaster = 'redis:/{PASSWORD}'"),
        format!("[keys]\nreplica = 'redis://u:{PASSWORD}@h:x'"),
        format!("[cluster]\nmappings = ['redis://u:{PASSWORD}@']"),
        format!("[cluster]\nmappings = ['redis+sentinel://u:{PASSWORD}@h:1']"),
        format!("[store]\nurl = 'redis:{PASSWORD}'"),
    ] {
        said += &Config::parse(&text).expect_err("is no address").to_string();
    }
    let leak = said.find(PASSWORD).map(|at| &said[at.saturating_sub(200)..at]);
    assert_eq!(leak, None);
    assert_eq!(log.leak([PASSWORD.to_owned()]), None);
}
