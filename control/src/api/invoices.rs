//! What minutes come to.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Asked, Caller, Refused};
use super::page;
use crate::fault::Fault;
use crate::http::App;
use crate::limits;
use crate::store::invoices::{Due, Invoice, Line, Month, Wanted, write_money};

type Answer = Result<Json<Value>, Refused>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoicesAsked {
    application: Option<String>,
    month: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// What was issued, page by page.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<InvoicesAsked>,
) -> Answer {
    let count = page::count(asked.limit)?;
    let after = |text: String| text.parse::<i64>().map_err(|_| page::unknown());
    let wanted = Wanted {
        application: caller.application(asked.application)?,
        month: asked.month.map(|month| month.parse()).transpose()?,
        after: asked.cursor.map(after).transpose()?,
        count: count + 1,
    };
    let items = app.store.invoices().list(&wanted).await?;
    let number = |last: &Invoice| last.issued.as_ref().map(|(number, _)| number.to_string());
    let (items, next) = page::cut(items, count, number);
    let items: Vec<Value> = items.iter().map(summary).collect();
    Ok(Json(json!({ "items": items, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DueAsked {
    application: Option<String>,
    month: Option<String>,
}

/// Months that an invoice is lacking of: the one asked for, or that which runs and those of a year
/// before.
pub async fn due(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<DueAsked>,
) -> Answer {
    let application = caller.application(asked.application)?;
    let now = app.notary.now();
    let month = asked.month.map(|month| month.parse()).transpose()?;
    let mut all = app.store.invoices().due(application.as_deref(), month, now).await?;
    let truncated = all.len() > limits::DUE_TOLD;
    all.truncate(limits::DUE_TOLD);
    let due = |due: &Due| {
        json!({
            "application": due.application,
            "month": due.month.to_string(),
            "minutes": due.minutes,
            "over": now >= due.month.end(),
        })
    };
    Ok(Json(json!({ "items": all.iter().map(due).collect::<Vec<_>>(), "truncated": truncated })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormAsked {
    format: Option<String>,
}

/// One of them, or what would be one.
pub async fn find(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((application, month)): Path<(String, String)>,
    Asked(asked): Asked<FormAsked>,
) -> Result<Response, Refused> {
    let month = month.parse()?;
    check_seen(&app, &caller, &application, month).await?;
    let found = app.store.invoices().find(&application, month, app.notary.now()).await?;
    match asked.format.as_deref() {
        None | Some("json") => Ok(Json(shown(&found)).into_response()),
        Some("csv") => {
            Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&found)).into_response())
        }
        Some(other) => Err(Fault::malformed(format!(
            "there is no format {other:?}; these are known: json, csv"
        ))
        .into()),
    }
}

/// Issues one, once.
pub async fn issue(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((application, month)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    caller.check_operator()?;
    let month = month.parse()?;
    check_known(&app, &application, month).await?;
    let now = app.notary.now();
    let (issued, is_new) = app.store.invoices().issue(&application, month, now).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&issued))))
}

async fn check_seen(
    app: &App,
    caller: &Caller,
    application: &str,
    month: Month,
) -> Result<(), Fault> {
    match caller {
        Caller::Application(own) if own == application => Ok(()),
        Caller::Application(_) => Err(unknown(application)),
        Caller::Operator => check_known(app, application, month).await,
    }
}

/// Refuses an application that is not there and has used nothing: one that was removed owes what it
/// used until then.
///
/// # Errors
/// [`crate::fault::Class::NotFound`].
pub async fn check_known(app: &App, application: &str, month: Month) -> Result<(), Fault> {
    let is_there = app.store.applications_read().find(application).await?.is_some();
    if is_there || app.store.invoices().is_known(application, month).await? {
        return Ok(());
    }
    Err(unknown(application))
}

fn unknown(application: &str) -> Fault {
    Fault::not_found(format!("there is no application {application:?}; see /applications"))
}

/// An invoice without its lines.
fn summary(invoice: &Invoice) -> Value {
    let money = |micros| write_money(micros, invoice.price.decimals);
    json!({
        "state": if invoice.issued.is_some() { "issued" } else { "draft" },
        "number": invoice.issued.map(|(number, _)| number),
        "issuedAt": invoice.issued.map(|(_, at)| at),
        "application": invoice.application,
        "month": invoice.month.to_string(),
        "issuer": invoice.price.issuer,
        "currency": invoice.price.currency,
        "decimals": invoice.price.decimals,
        "minutes": invoice.minutes,
        "total": money(invoice.total),
    })
}

fn shown(invoice: &Invoice) -> Value {
    let money = |micros| write_money(micros, invoice.price.decimals);
    let line = |line: &Line| {
        json!({
            "kind": kind(invoice, line),
            "month": line.month.to_string(),
            "minutes": line.minutes,
            "perThousandMinutes": money(line.price),
            "amount": money(line.amount),
        })
    };
    let mut shown = summary(invoice);
    shown["lines"] = invoice.lines.iter().map(line).collect();
    shown
}

fn kind(invoice: &Invoice, line: &Line) -> &'static str {
    if line.month == invoice.month { "usage" } else { "correction" }
}

/// A row for each line (RFC 4180).
fn csv(invoice: &Invoice) -> String {
    let money = |micros| write_money(micros, invoice.price.decimals);
    let number = invoice.issued.map_or_else(|| "draft".into(), |(number, _)| number.to_string());
    let application = field(&invoice.application);
    let mut text = String::from(
        "number,application,month,kind,line_month,minutes,per_thousand_minutes,amount,currency\r\n",
    );
    for line in &invoice.lines {
        let _infallible = write!(
            text,
            "{number},{application},{},{},{},{},{},{},{}\r\n",
            invoice.month,
            kind(invoice, line),
            line.month,
            line.minutes,
            money(line.price),
            money(line.amount),
            invoice.price.currency,
        );
    }
    text
}

/// A name as a field: quoted, and never a formula, which spreadsheets would carry out.
fn field(name: &str) -> String {
    let formula = if name.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{formula}{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_formulas_and_no_fields() {
        assert_eq!(field("acme"), "\"acme\"");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
    }
}
