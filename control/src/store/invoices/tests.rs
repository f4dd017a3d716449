//! Invoices against the minutes that the API tells, whatever comes late.

use proptest::prelude::*;

use super::*;
use crate::events::event::{Event, Stay, What};
use crate::fault::Class;
use crate::store::Store;

const FIRST: &str = "2026-01";
const MONTHS: i64 = 4;

fn month(number: i64) -> Month {
    FIRST.parse::<Month>().unwrap().back(-number)
}

/// After all months of these tests.
fn later() -> i64 {
    month(MONTHS + 20).begin()
}

fn price(currency: &str, micros: i64) -> Price {
    Price {
        application: None,
        from: month(0).back(24),
        currency: currency.into(),
        decimals: 2,
        micros,
        issuer: "Example Ltd".into(),
    }
}

/// Somebody was there for so long.
async fn stay(store: &Store, number: usize, application: &str, joined: i64, length_ms: i64) {
    tell(store, number, application, joined, length_ms, true).await;
}

/// Somebody was there for so long, or is taken to be there yet.
async fn tell(
    store: &Store,
    number: usize,
    application: &str,
    joined: i64,
    length_ms: i64,
    is_over: bool,
) {
    let stay = Stay {
        stay: format!("n.{number}"),
        peer: "p".into(),
        client: "native".into(),
        joined,
        until: joined + length_ms,
        left: is_over.then(|| "left".into()),
        ..Stay::default()
    };
    let event = Event {
        id: format!("n.{number}.{is_over}"),
        at: joined,
        node: "here".into(),
        application: application.into(),
        scope: "lobby".into(),
        session: format!("s-{number}"),
        created: joined,
        what: if is_over { What::Left { stay } } else { What::Present { stays: vec![stay] } },
    };
    store.records().write(&[event]).await.unwrap();
}

async fn minutes(store: &Store, application: &str, month: Month) -> i64 {
    let span = span(Some(application), month, month);
    let rows = store.sums().usage(&span, By::Month, false).await.unwrap();
    rows.first().map_or(0, |row| row.participant_minutes)
}

fn lines(invoice: &Invoice) -> Vec<(String, i64, i64)> {
    let line = |line: &Line| (line.month.to_string(), line.minutes, line.amount);
    invoice.lines.iter().map(line).collect()
}

#[tokio::test]
async fn late_minutes_are_on_the_next_invoice() {
    let store = Store::open_in_memory().await.unwrap();
    let invoices = store.invoices();
    let fault = invoices.find("acme", month(0), later()).await.unwrap_err();
    assert_eq!(fault.class, Class::Conflict, "{fault}");
    assert!(fault.reason.contains("PUT /api/v1/prices"), "{fault}");
    store.prices().set(&price("EUR", 4_000_000)).await.unwrap();
    // 100 minutes and a second, and 40 seconds around midnight.
    stay(&store, 0, "acme", month(0).begin(), 6_001_000).await;
    stay(&store, 1, "acme", month(1).begin() - 20_000, 40_000).await;
    let middle = month(0).begin() + 1;
    let draft = invoices.find("acme", month(0), middle).await.unwrap();
    assert_eq!((draft.issued, draft.minutes, draft.total), (None, 101, 400_000));
    let early = invoices.issue("acme", month(0), middle).await.unwrap_err();
    assert_eq!(early.class, Class::Conflict, "{early}");
    let ahead = invoices.find("acme", month(1), middle).await.unwrap_err();
    assert_eq!(ahead.class, Class::Malformed, "{ahead}");

    let (first, is_new) = invoices.issue("acme", month(0), month(0).end()).await.unwrap();
    assert!(is_new);
    assert_eq!(first.issued, Some((1, month(0).end())));
    // What is dearer from now on is for what comes.
    let dearer = Price { from: month(1), ..price("EUR", 8_000_000) };
    store.prices().set(&dearer).await.unwrap();
    stay(&store, 2, "acme", month(0).begin() + 7, 3_600_000).await;
    let again = invoices.issue("acme", month(0), later()).await.unwrap();
    assert_eq!(again, (first.clone(), false), "what was issued never changes");
    assert_eq!(invoices.find("acme", month(0), later()).await.unwrap(), first);
    let (second, _) = invoices.issue("acme", month(1), later()).await.unwrap();
    // One minute for 0.008, which is 0.01; sixty as dear as in their own month.
    let wanted = [("2026-02".to_owned(), 1, 10_000), ("2026-01".to_owned(), 60, 240_000)];
    assert_eq!(lines(&second), wanted);
    assert_eq!((second.minutes, second.total), (61, 250_000));
    let third = invoices.find("acme", month(2), later()).await.unwrap();
    assert_eq!(lines(&third), [("2026-03".to_owned(), 0, 0)], "billed once");

    // In another currency there is no other price than its own.
    store.prices().set(&Price { from: month(3), ..price("JPY", 2_000_000) }).await.unwrap();
    stay(&store, 3, "acme", month(1).begin() + 60_000, 600_000).await;
    let yen = invoices.find("acme", month(3), later()).await.unwrap();
    assert_eq!(lines(&yen)[1], ("2026-02".to_owned(), 10, 20_000));
    // Later than a year is too late.
    let late = invoices.find("acme", month(1 + limits::MONTHS_CORRECTED), later()).await.unwrap();
    assert_eq!(late.lines.len(), 2);
    let late = invoices.find("acme", month(2 + limits::MONTHS_CORRECTED), later()).await.unwrap();
    assert_eq!(late.lines.len(), 1);
}

#[tokio::test]
async fn minutes_that_were_none_are_given_back() {
    let store = Store::open_in_memory().await.unwrap();
    let invoices = store.invoices();
    store.prices().set(&price("EUR", 4_125_000)).await.unwrap();
    // Present until 14:00, by the last that its node told; it left at 13:00.
    tell(&store, 0, "acme", month(0).begin(), 7_200_000, false).await;
    let (first, _) = invoices.issue("acme", month(0), later()).await.unwrap();
    assert_eq!(lines(&first), [("2026-01".to_owned(), 120, 500_000)]);
    tell(&store, 0, "acme", month(0).begin(), 3_600_000, true).await;
    assert_eq!(minutes(&store, "acme", month(0)).await, 60);
    let (second, _) = invoices.issue("acme", month(1), later()).await.unwrap();
    let wanted = [("2026-02".to_owned(), 0, 0), ("2026-01".to_owned(), -60, -250_000)];
    assert_eq!(lines(&second), wanted);
    assert_eq!((second.minutes, second.total), (-60, -250_000));
    let third = invoices.find("acme", month(2), later()).await.unwrap();
    assert_eq!(third.lines.len(), 1, "given back once");
    // Sums of which a month is gone are those of another store.
    let statement = "DELETE FROM usage_sums WHERE at_ms < ?";
    invoices.pool.execute(statement, &values![month(1).begin()]).await.unwrap();
    assert_eq!(invoices.find("acme", month(2), later()).await.unwrap().lines.len(), 1);
    assert_eq!(invoices.due(None, None, month(2).begin()).await.unwrap(), []);
}

#[tokio::test]
async fn most_of_a_month_is_not_given_back_unasked() {
    let store = Store::open_in_memory().await.unwrap();
    let invoices = store.invoices();
    store.prices().set(&price("EUR", 4_000_000)).await.unwrap();
    tell(&store, 0, "acme", month(0).begin(), 2_000 * 60_000, false).await;
    invoices.issue("acme", month(0), later()).await.unwrap();
    tell(&store, 0, "acme", month(0).begin(), 60_000, true).await;
    let fault = invoices.issue("acme", month(1), later()).await.unwrap_err();
    assert_eq!(fault.class, crate::fault::Class::Conflict, "{fault}");
    assert!(fault.reason.contains("moved, or restored in part"), "{fault}");
}

#[tokio::test]
async fn whoever_has_minutes_without_an_invoice_is_due() {
    let store = Store::open_in_memory().await.unwrap();
    let invoices = store.invoices();
    store.prices().set(&price("EUR", 4_000_000)).await.unwrap();
    let now = month(3).begin() + 1;
    let due = async |wanted: Option<i64>| {
        let due = invoices.due(None, wanted.map(month), now).await.unwrap();
        let told = |due: Due| (due.application, due.month.to_string(), due.minutes);
        due.into_iter().map(told).collect::<Vec<_>>()
    };
    let of = |application: &str, month: &str, minutes| (application.into(), month.into(), minutes);
    stay(&store, 0, "a", month(3).begin(), 60_000).await;
    stay(&store, 1, "late", month(0).begin(), 60_000).await;
    stay(&store, 2, "b", month(3).back(limits::MONTHS_CORRECTED).begin(), 120_000).await;
    stay(&store, 3, "b", month(2).begin(), 180_000).await;
    invoices.issue("late", month(0), now).await.unwrap();
    let wanted = [of("b", "2026-03", 3), of("b", "2025-04", 2), of("a", "2026-04", 1)];
    assert_eq!(due(None).await, wanted);

    // Who used nothing since has an invoice to come all the same, once, and in the first month there is.
    stay(&store, 4, "late", month(0).begin(), 7 * 60_000).await;
    assert_eq!(due(Some(1)).await, [of("late", "2026-02", 7)]);
    assert_eq!(due(Some(2)).await, [of("b", "2026-03", 3)]);
    assert_eq!(due(None).await.len(), 4);
    invoices.issue("late", month(1), now).await.unwrap();
    assert_eq!(due(None).await, wanted);
    // And so has who is owed something, in the month that runs where all others were issued.
    invoices.issue("late", month(2), now).await.unwrap();
    tell(&store, 5, "a", month(2).begin(), 600_000, false).await;
    invoices.issue("a", month(2), now).await.unwrap();
    tell(&store, 5, "a", month(2).begin(), 240_000, true).await;
    stay(&store, 6, "late", month(1).begin(), 60_000).await;
    let wanted = [
        of("b", "2026-03", 3),
        of("b", "2025-04", 2),
        of("a", "2026-04", 1 - 6),
        of("late", "2026-04", 1),
    ];
    assert_eq!(due(None).await, wanted);
}

#[tokio::test]
async fn applications_have_prices_of_their_own() {
    let store = Store::open_in_memory().await.unwrap();
    let (prices, any) = (store.prices(), price("EUR", 1_000_000));
    let own = Price { application: Some("acme".into()), from: month(1), ..price("USD", 5) };
    for price in [&any, &own, &own] {
        prices.set(price).await.unwrap();
    }
    assert_eq!(prices.list().await.unwrap(), [any.clone(), own.clone()]);
    let newer = Price { from: month(2), ..price("EUR", 2_000_000) };
    prices.set(&newer).await.unwrap();
    assert_eq!(prices.valid("acme", month(0)).await.unwrap(), any);
    assert_eq!(prices.valid("acme", month(3)).await.unwrap(), own, "its own comes first");
    assert_eq!(prices.valid("other", month(1)).await.unwrap(), any);
    assert_eq!(prices.valid("other", month(2)).await.unwrap(), newer);
    prices.remove(Some("acme"), month(1)).await.unwrap();
    let gone = prices.remove(Some("acme"), month(1)).await.unwrap_err();
    assert_eq!(gone.class, Class::NotFound);
    assert_eq!(prices.valid("acme", month(2)).await.unwrap(), newer);
    let nobody = prices.remove(Some(""), newer.from).await.unwrap_err();
    assert_eq!(nobody.class, Class::Malformed);
    assert_eq!(prices.valid("acme", month(2)).await.unwrap(), newer, "everybody's is there");
    for wrong in [
        Price { currency: "eur".into(), ..any.clone() },
        Price { decimals: 5, ..any.clone() },
        Price { issuer: "x".repeat(limits::ISSUER_BYTES + 1), ..any.clone() },
        Price { issuer: "\0".into(), ..any.clone() },
        Price { application: Some(String::new()), ..any },
    ] {
        assert_eq!(prices.set(&wrong).await.unwrap_err().class, Class::Malformed, "{wrong:?}");
    }
}

/// What happens to an application.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody is there: from so many milliseconds of a month on, for so long.
    Stay(i64, i64, i64),
    /// Likewise, and nothing tells of its end.
    Present(i64, i64, i64),
    /// All who are there left, and were there for so many hundredths of what was told.
    Left(i64),
    Issue(i64),
    Price(i64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let day = 86_400_000_i64;
    // Months are of 28 to 31 days: some stays go on into the next one.
    let at = prop_oneof![0..31 * day, 28 * day - 3_600_000..31 * day];
    let there = (0..MONTHS, at.clone(), 1..7_200_000_i64);
    prop_oneof![
        4 => (0..MONTHS, at, 1..7_200_000_i64).prop_map(|(m, at, long)| Step::Stay(m, at, long)),
        3 => there.prop_map(|(m, at, long)| Step::Present(m, at, long)),
        2 => (0..101_i64).prop_map(Step::Left),
        3 => (0..MONTHS).prop_map(Step::Issue),
        1 => (0..MONTHS, 0..9_000_000_i64).prop_map(|(m, micros)| Step::Price(m, micros)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However minutes and invoices come, all lines of a month together, with those that the next
    /// invoice will have, are the minutes of the API; numbers have no gaps, and what was issued stays.
    #[test]
    fn lines_of_a_month_are_its_minutes(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open_in_memory().await.unwrap();
            let invoices = store.invoices();
            store.prices().set(&price("EUR", 3_990_000)).await.unwrap();
            let mut issued: Vec<Invoice> = Vec::new();
            let mut there = Vec::new();
            for (number, step) in steps.iter().enumerate() {
                match *step {
                    Step::Stay(m, at, long) => {
                        stay(&store, number, "acme", month(m).begin() + at, long).await;
                        stay(&store, 1_000 + number, "other", month(m).begin(), long).await;
                    }
                    Step::Present(m, at, long) => {
                        let joined = month(m).begin() + at;
                        tell(&store, number, "acme", joined, long, false).await;
                        there.push((number, joined, long));
                    }
                    Step::Left(part) => {
                        for (number, joined, long) in there.drain(..) {
                            let was = long * part / 100;
                            tell(&store, number, "acme", joined, was, true).await;
                        }
                    }
                    Step::Price(m, micros) => {
                        let price = Price { from: month(m), ..price("EUR", micros) };
                        store.prices().set(&price).await.unwrap();
                    }
                    Step::Issue(m) => {
                        let draft = invoices.find("acme", month(m), later()).await.unwrap();
                        let (told, is_new) =
                            invoices.issue("acme", month(m), later()).await.unwrap();
                        assert_eq!(told.lines, draft.lines);
                        match is_new {
                            true => issued.push(told),
                            false => assert!(issued.contains(&told)),
                        }
                    }
                }
            }
            let mut all = issued.clone();
            // A month after all of these has no minutes of its own but what is left over.
            all.push(invoices.find("acme", month(MONTHS + 1), later()).await.unwrap());
            for m in (0..MONTHS).map(month).filter(|m| issued.iter().any(|each| each.month == *m)) {
                let lines = all.iter().flat_map(|each| &each.lines).filter(|line| line.month == m);
                let billed: i64 = lines.map(|line| line.minutes).sum();
                assert_eq!(billed, minutes(&store, "acme", m).await, "{m}");
            }
            for (number, told) in issued.iter().enumerate() {
                assert_eq!(told.issued.unwrap().0, number as i64 + 1);
                let kept = invoices.find("acme", told.month, later()).await.unwrap();
                assert_eq!(&kept, told);
                let sum: i64 = told.lines.iter().map(|line| line.amount).sum();
                assert_eq!(sum, told.total);
            }
            let wanted = Wanted { count: 99, ..Wanted::default() };
            let list = invoices.list(&wanted).await.unwrap();
            assert_eq!(list.len(), issued.len());
        });
    }
}
