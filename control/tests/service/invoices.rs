//! Invoices: once each, whoever issues at the same time, on every engine; and who may see which.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use strait_control::auth::{Claims, Secret, Signer, mint};
use strait_control::events::event::{Event, Stay, What};
use strait_control::fault::Class;
use strait_control::limits;
use strait_control::store::Store;
use strait_control::store::invoices::{Due, Invoice, Month, Price, Wanted};

use crate::Service;
use crate::databases::Database;

const OPERATOR: &str = "an operator's token of 32 letters or more";
const MINUTE: i64 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_issues_each_invoice_once() {
    let folder = tempfile::tempdir().unwrap();
    issues_once(&format!("sqlite:{}/control.db", folder.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_issues_each_invoice_once() {
    let Some(database) = Database::mariadb("mariadb_issues_each_invoice_once") else { return };
    issues_once(&database.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_issues_each_invoice_once() {
    let Some(database) = Database::postgres("postgresql_issues_each_invoice_once") else { return };
    issues_once(&database.url).await;
}

/// A stay of so many minutes.
async fn stay(store: &Store, name: &str, application: &str, joined: i64, minutes: i64) {
    store.records().write(&[told(name, application, joined, minutes, true)]).await.unwrap();
}

/// What is told of a stay of so many minutes, or of one that goes on.
fn told(name: &str, application: &str, joined: i64, minutes: i64, is_over: bool) -> Event {
    let stay = Stay {
        stay: name.into(),
        peer: "p".into(),
        client: "native".into(),
        joined,
        until: joined + minutes * MINUTE,
        left: is_over.then(|| "left".into()),
        ..Stay::default()
    };
    Event {
        id: format!("{name}-{is_over}"),
        at: joined,
        node: "here".into(),
        application: application.into(),
        scope: "lobby".into(),
        session: format!("s-{name}"),
        created: joined,
        what: if is_over { What::Left { stay } } else { What::Present { stays: vec![stay] } },
    }
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn price(per_thousand_micros: i64) -> Price {
    Price {
        application: None,
        from: month("2025-01"),
        currency: "EUR".into(),
        decimals: 2,
        micros: per_thousand_micros,
        issuer: "Zoë's media\nSomewhere 1".into(),
    }
}

/// Two controls with one store, each asked for the same invoices several times at once.
async fn issues_once(url: &str) {
    let stores = [Store::open(url).await.unwrap(), Store::open(url).await.unwrap()];
    let [store, _] = &stores;
    store.prices().set(&price(4_000_000)).await.unwrap();
    // As often as one likes, and only in its own case.
    store.prices().set(&price(3_990_000)).await.unwrap();
    let now = month("2026-06").begin();
    let months = ["2026-01", "2026-02", "2026-03"].map(month);
    for application in ["app-0", "App-0", "app-1"] {
        for (number, month) in (1..).zip(months) {
            let name = format!("{application}-{month}");
            stay(store, &name, application, month.begin(), number * 100).await;
        }
    }
    let (first, is_new) = store.invoices().issue("app-1", months[0], now).await.unwrap();
    assert!(is_new);
    assert_eq!((first.minutes, first.total), (100, 400_000));
    // They come late, and are to be on one invoice, whichever comes first.
    stay(store, "late", "app-1", months[0].begin() + 7, 7).await;

    let mut tasks = Vec::new();
    for turn in 0..4 {
        for (application, month) in [
            ("app-0", months[0]),
            ("App-0", months[0]),
            ("app-0", months[1]),
            ("app-1", months[1]),
            ("app-1", months[2]),
        ] {
            let invoices = stores[turn % 2].invoices();
            tasks.push(tokio::spawn(async move {
                for attempt in 0.. {
                    match invoices.issue(application, month, now).await {
                        Ok(told) => return told,
                        // More questions at a time than there are connections for.
                        Err(fault) => {
                            assert_eq!(fault.class, Class::Unavailable, "{fault}");
                            assert!(attempt < 50, "{fault}");
                        }
                    }
                }
                unreachable!()
            }));
        }
    }
    let mut issued: BTreeMap<i64, Invoice> = BTreeMap::new();
    let mut made = 0;
    for task in tasks {
        let (told, is_new) = task.await.unwrap();
        made += usize::from(is_new);
        let (number, _) = told.issued.unwrap();
        let kept = issued.entry(number).or_insert_with(|| told.clone());
        assert_eq!(*kept, told);
    }
    assert_eq!(made, 5);
    assert_eq!(issued.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    let of = |application: &str, month: Month| {
        let found = issued.values().find(|i| i.application == application && i.month == month);
        found.unwrap().clone()
    };
    assert_eq!(of("App-0", months[0]).minutes, 100);
    assert_eq!(of("app-0", months[1]).minutes, 200);
    let late = [of("app-1", months[1]), of("app-1", months[2])];
    assert_eq!(late.iter().map(|each| each.minutes).sum::<i64>(), 200 + 300 + 7, "{late:?}");
    assert_eq!(late.iter().map(|each| each.lines.len()).sum::<usize>(), 3);
    // As they are kept, also for who opens the store anew.
    let again = Store::open(url).await.unwrap();
    for told in issued.values() {
        let kept = again.invoices().find(&told.application, told.month, now).await.unwrap();
        assert_eq!(kept, *told);
        assert_eq!(kept.price.issuer, "Zoë's media\nSomewhere 1");
    }
    let wanted = Wanted { application: Some("app-1".into()), count: 2, ..Wanted::default() };
    let list = again.invoices().list(&wanted).await.unwrap();
    assert!(list[0].issued > list[1].issued && list.len() == 2, "{list:?}");
    let due = again.invoices().due(None, Some(months[2]), now).await.unwrap();
    let due: Vec<_> = due.iter().map(|due| (due.application.as_str(), due.minutes)).collect();
    assert_eq!(due.len(), 2);
    assert!(due.contains(&("app-0", 300)) && due.contains(&("App-0", 300)), "{due:?}");
    gives_back(store, months, now).await;
}

/// Somebody was taken to be there for longer than they were, and for this alone there is an invoice.
async fn gives_back(store: &Store, [first, second, _]: [Month; 3], now: i64) {
    let (records, invoices) = (store.records(), store.invoices());
    let tell = |minutes, is_over| told("short", "app-2", first.begin(), minutes, is_over);
    records.write(&[tell(100, false)]).await.unwrap();
    let (issued, _) = invoices.issue("app-2", first, now).await.unwrap();
    assert_eq!((issued.minutes, issued.total), (100, 400_000));
    records.write(&[tell(40, true)]).await.unwrap();
    let due = invoices.due(Some("app-2"), None, now).await.unwrap();
    let wanted = Due { application: "app-2".into(), month: second, minutes: -60 };
    assert_eq!(due, std::slice::from_ref(&wanted));
    let all = invoices.due(None, None, now).await.unwrap();
    assert!(all.contains(&wanted) && all.is_sorted_by_key(|due| Reverse(due.month)), "{all:?}");
    let (back, _) = invoices.issue("app-2", second, now).await.unwrap();
    // 60 × 3.99 / 1,000 = 0.2394
    assert_eq!((back.lines[1].month, back.minutes, back.total), (first, -60, -240_000));
    assert_eq!(invoices.find("app-2", second, now).await.unwrap(), back);
    assert_eq!(invoices.due(Some("app-2"), None, now).await.unwrap(), []);
    // Nobody's name is everybody's.
    let nobody = store.prices().remove(Some(""), month("2025-01")).await.unwrap_err();
    assert_eq!(nobody.class, Class::Malformed, "{nobody}");
    assert_eq!(store.prices().list().await.unwrap().len(), 1);
}

async fn call(
    service: &Service,
    method: Method,
    path: &str,
    token: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let request = Client::new().request(method, service.url(&format!("/api/v1{path}")));
    let request = request.bearer_auth(token);
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn token(key: &Secret) -> String {
    let claims = Claims { admin: true, ..Claims::new("acme", "alice", "*", 4_000_000_000) };
    mint(&claims, Some("first"), &Signer::Hs256(key)).unwrap()
}

#[tokio::test]
async fn a_month_is_drafted_issued_and_seen_by_whom_it_concerns() {
    let service = Service::start_with(|config| config.api.tokens = vec![OPERATOR.into()]).await;
    let key = service.add_application("acme").await;
    let admin = token(&key);
    let app = &service.server.app;
    let running = Month::of(app.notary.now());
    let (over, ahead) = (running.back(1), running.back(-1));
    stay(&app.store, "a", "acme", over.begin(), 1_001).await;
    stay(&app.store, "b", "=gone", over.begin(), 10).await;
    stay(&app.store, "c", "acme", running.begin(), 1).await;
    let get = async |path: &str, token: &str| call(&service, Method::GET, path, token, None).await;
    let path = format!("/invoices/acme/{over}");

    let (status, told) = get(&path, &admin).await;
    assert_eq!((status, told["error"].as_str()), (409, Some("conflict")), "no price: {told}");
    let set = |body: Value| call(&service, Method::PUT, "/prices", OPERATOR, Some(body));
    let price = json!({
        "from": over.to_string(), "currency": "EUR", "perThousandMinutes": "3.99",
        "issuer": "Example Ltd",
    });
    let (status, told) = set(price.clone()).await;
    assert_eq!((status, &told["perThousandMinutes"]), (200, &json!("3.99")), "{told}");
    for (name, value, wanted) in [
        ("perThousandMinutes", json!("3,99"), 400),
        ("perThousandMinutes", json!(3.99), 400),
        ("currency", json!("euro"), 400),
        ("from", json!("2026"), 400),
        ("decimals", json!(7), 400),
        ("application", json!("nobody"), 404),
    ] {
        let mut wrong = price.clone();
        wrong[name] = value;
        let (status, told) = set(wrong).await;
        assert_eq!(status, wanted, "{name}: {told}");
        assert_ne!(told["remedy"], "", "{told}");
    }

    let (status, draft) = get(&path, &admin).await;
    assert_eq!((status, &draft["state"], &draft["number"]), (200, &json!("draft"), &Value::Null));
    // 1,001 × 3.99 / 1,000 = 3.99399
    let line = json!({
        "kind": "usage", "month": over.to_string(), "minutes": 1_001,
        "perThousandMinutes": "3.99", "amount": "3.99",
    });
    assert_eq!((&draft["lines"], &draft["total"]), (&json!([line]), &json!("3.99")));
    let usage = format!("/usage?by=month&from={}&to={}", over.begin(), over.end());
    let (_, usage) = get(&usage, &admin).await;
    assert_eq!(usage["total"]["participantMinutes"], draft["minutes"]);

    let issue = |path: String, token: String| {
        let service = &service;
        async move { call(service, Method::POST, &path, &token, None).await }
    };
    assert_eq!(issue(path.clone(), admin.clone()).await.0, 403, "operators alone issue");
    let early = format!("/invoices/acme/{running}");
    assert_eq!(issue(early.clone(), OPERATOR.into()).await.0, 409, "the month is not over");
    assert_eq!(get(&early, &admin).await.1["minutes"], 1, "and has a draft");
    assert_eq!(get(&format!("/invoices/acme/{ahead}"), &admin).await.0, 400);
    assert_eq!(get("/invoices/acme/2026-13", &admin).await.0, 400);
    assert_eq!(issue(format!("/invoices/nobody/{over}"), OPERATOR.into()).await.0, 404);

    let (_, due) = get("/invoices/due", OPERATOR).await;
    assert_eq!(due["items"].as_array().unwrap().len(), 3, "{due}");
    let (status, issued) = issue(path.clone(), OPERATOR.into()).await;
    assert_eq!((status, &issued["number"]), (201, &json!(1)), "{issued}");
    assert_eq!(issue(path.clone(), OPERATOR.into()).await, (200, issued.clone()));
    let (_, due) = get("/invoices/due", &admin).await;
    let left = json!([
        {"application": "acme", "month": running.to_string(), "minutes": 1, "over": false},
    ]);
    assert_eq!(due["items"], left);
    // What comes late, a dearer price and the end of the application leave it as it is.
    stay(&app.store, "d", "acme", over.begin(), 60).await;
    let dearer = json!({"from": over.to_string(), "currency": "EUR", "perThousandMinutes": "9"});
    assert_eq!(set(dearer).await.0, 200);
    assert_eq!(get(&path, &admin).await, (200, issued.clone()));
    let (_, next) = get(&early, &admin).await;
    assert_eq!(
        (&next["lines"][1]["kind"], &next["lines"][1]["minutes"]),
        (&json!("correction"), &json!(60))
    );
    assert_eq!(call(&service, Method::DELETE, "/applications/acme", OPERATOR, None).await.0, 204);
    assert_eq!(get(&path, OPERATOR).await, (200, issued));
    let (status, told) = call(
        &service,
        Method::DELETE,
        &format!("/prices?application=&from={over}"),
        OPERATOR,
        None,
    )
    .await;
    assert_eq!((status, &told["error"]), (400, &json!("malformed")), "{told}");
    let removed = format!("/prices?from={over}");
    assert_eq!(call(&service, Method::DELETE, &removed, OPERATOR, None).await.0, 204);
    assert_eq!(get("/prices", OPERATOR).await.1["items"], json!([]));

    let gone = format!("/invoices/%3Dgone/{over}");
    assert_eq!(issue(gone.clone(), OPERATOR.into()).await.0, 409, "no price any more");
    assert_eq!(set(price).await.0, 200);
    assert_eq!(issue(gone.clone(), OPERATOR.into()).await.1["number"], 2);
    let (_, text) = get(&format!("{gone}?format=csv"), OPERATOR).await;
    let wanted = format!(
        "number,application,month,kind,line_month,minutes,per_thousand_minutes,amount,currency\r\n\
         2,\"'=gone\",{over},usage,{over},10,3.99,0.04,EUR\r\n"
    );
    assert_eq!(text, Value::String(wanted));
    assert_eq!(get(&format!("{gone}?format=pdf"), OPERATOR).await.0, 400);
    let (_, page) = get("/invoices?limit=1", OPERATOR).await;
    assert_eq!((&page["items"][0]["number"], &page["next"]), (&json!(2), &json!("2")));
    let (_, page) = get("/invoices?limit=1&cursor=2", OPERATOR).await;
    assert_eq!((&page["items"][0]["number"], &page["next"]), (&json!(1), &Value::Null));
    assert_eq!(get("/invoices?cursor=x", OPERATOR).await.0, 400);
}

#[tokio::test]
async fn what_can_be_issued_is_told_however_many_use_the_month_that_runs() {
    let service = Service::start_with(|config| config.api.tokens = vec![OPERATOR.into()]).await;
    let app = &service.server.app;
    let running = Month::of(app.notary.now());
    let use_now = |number: usize| {
        let name = format!("app-{number}");
        told(&name, &name, running.begin(), 1, true)
    };
    let many: Vec<Event> = (0..=limits::DUE_TOLD).map(use_now).collect();
    app.store.records().write(&many).await.unwrap();
    stay(&app.store, "forgotten", "zz", running.back(5).begin(), 5).await;
    stay(&app.store, "over", "zz", running.back(1).begin(), 1).await;
    let (_, due) = call(&service, Method::GET, "/invoices/due", OPERATOR, None).await;
    let items = due["items"].as_array().unwrap();
    assert_eq!((items.len(), &due["truncated"]), (limits::DUE_TOLD, &json!(true)));
    let told = |back: i64, minutes: i64| {
        let month = running.back(back).to_string();
        json!({"application": "zz", "month": month, "minutes": minutes, "over": true})
    };
    assert_eq!(items[..2], [told(1, 1), told(5, 5)]);
    assert_eq!(items[2]["over"], json!(false));
}

#[tokio::test]
async fn an_application_sees_its_own_invoices_alone() {
    let service = Service::start_with(|config| config.api.tokens = vec![OPERATOR.into()]).await;
    let key = service.add_application("acme").await;
    let admin = token(&key);
    let app = &service.server.app;
    let over = Month::of(app.notary.now()).back(1);
    app.store.prices().set(&price(1_000_000)).await.unwrap();
    for (name, application) in [("a", "acme"), ("b", "other")] {
        stay(&app.store, name, application, over.begin(), 10).await;
        let path = format!("/invoices/{application}/{over}");
        assert_eq!(call(&service, Method::POST, &path, OPERATOR, None).await.0, 201);
    }
    let get = async |path: &str| call(&service, Method::GET, path, &admin, None).await;
    let (_, list) = get("/invoices").await;
    assert_eq!(
        (list["items"].as_array().unwrap().len(), &list["items"][0]["application"]),
        (1, &json!("acme"))
    );
    assert_eq!(get("/invoices?application=other").await.0, 403);
    assert_eq!(get("/invoices/due?application=other").await.0, 403);
    assert_eq!(get(&format!("/invoices/other/{over}")).await.0, 404, "as good as none");
    assert_eq!(get(&format!("/invoices/acme/{over}")).await.0, 200);
    for (method, path) in [
        (Method::GET, "/prices".to_owned()),
        (Method::DELETE, "/prices?from=2026-01".to_owned()),
        (Method::POST, format!("/invoices/acme/{over}")),
    ] {
        let (status, _) = call(&service, method, &path, &admin, None).await;
        assert_eq!(status, StatusCode::FORBIDDEN.as_u16(), "{path}");
    }
}
