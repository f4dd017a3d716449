//! Invoices: an application's minutes of a month, what they cost, and what came late of months before.
//!
//! While a month has no invoice it is drafted from the sums whenever somebody asks. One that was
//! issued is never changed: minutes that come later, or turn out to be none, are lines of the next
//! one, so that all lines of a month together are the minutes that the API tells of it.

mod due;
mod money;
mod month;
mod prices;

use std::collections::BTreeMap;

use super::analytics::Filter;
use super::sql::{Open, Pool, Row, Value, times, values};
use super::sums::{By, Span, Sums};
use crate::fault::Fault;
use crate::limits;

pub use due::Due;
pub use money::{read as read_money, write as write_money};
pub use month::Month;
pub use prices::{Price, Prices};

/// What was issued, and what would be.
#[derive(Clone)]
pub struct Invoices {
    pool: Pool,
    reads: Pool,
    sums: Sums,
    prices: Prices,
}

/// An application's minutes, and what they cost. Amounts are in millionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// Its number and when it was issued, in milliseconds since 1970; none is a draft.
    pub issued: Option<(i64, i64)>,
    /// Whose minutes.
    pub application: String,
    /// Of which month.
    pub month: Month,
    /// What 1,000 minutes of that month cost it, wherever that was set, and who says so.
    pub price: Price,
    /// Of all lines.
    pub minutes: i64,
    /// Of all lines.
    pub total: i64,
    /// The month's own first; empty in lists.
    pub lines: Vec<Line>,
}

/// Minutes that were used in one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// That of the invoice, or one before that was issued without these, or with more.
    pub month: Month,
    /// How many; below zero: so many were on an invoice before and were none.
    pub minutes: i64,
    /// What 1,000 of them cost.
    pub price: i64,
    /// What they cost, halves rounded away from zero.
    pub amount: i64,
}

/// Which invoices.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of one application.
    pub application: Option<String>,
    /// Of one month.
    pub month: Option<Month>,
    /// Before this number.
    pub after: Option<i64>,
    /// So many at most.
    pub count: usize,
}

/// A month that was issued, and how many of its minutes are on whichever invoice.
#[derive(Debug, PartialEq, Eq)]
struct Billed {
    month: Month,
    currency: String,
    price: i64,
    minutes: i64,
}

impl Invoices {
    pub(super) fn new(pool: Pool, reads: Pool, sums: Sums, prices: Prices) -> Self {
        Self { pool, reads, sums, prices }
    }

    /// An application's invoice of a month as it was issued, or as it would be now.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`]: the month has not begun; [`crate::fault::Class::Conflict`]:
    /// it has no price; [`crate::fault::Class::NotAcceptable`], [`crate::fault::Class::Internal`].
    pub async fn find(&self, application: &str, month: Month, now: i64) -> Result<Invoice, Fault> {
        if let Some(issued) = self.issued(application, month).await? {
            return Ok(issued);
        }
        if now < month.begin() {
            return Err(Fault::malformed(format!(
                "{month} has not begun; ask for a month up to {}",
                Month::of(now)
            )));
        }
        let price = self.prices.valid(application, month).await?;
        let billed = self.reads.rows(BILLED, &before(application, month)).await?;
        let used = self.used(application, month).await?;
        draft(application, month, price, &used, &read_billed(&billed)?)
    }

    /// Issues a month that is over, once: whoever asks again gets what was issued, and `false`.
    ///
    /// # Errors
    /// As [`Invoices::find`]; [`crate::fault::Class::Conflict`] also when the month is not over;
    /// [`crate::fault::Class::Unavailable`]: others issue for the same application all the while.
    pub async fn issue(
        &self,
        application: &str,
        month: Month,
        now: i64,
    ) -> Result<(Invoice, bool), Fault> {
        if let Some(issued) = self.issued(application, month).await? {
            return Ok((issued, false));
        }
        if now < month.end() {
            return Err(Fault::conflict(format!(
                "{month} is not over in UTC; take the draft until then, and issue it afterwards"
            )));
        }
        let price = self.prices.valid(application, month).await?;
        for _ in 0..limits::ISSUE_TRIES {
            let billed = self.reads.rows(BILLED, &before(application, month)).await?;
            let billed = read_billed(&billed)?;
            let used = self.used(application, month).await?;
            let mut open = self.pool.begin().await?;
            // One issues at a time: so numbers have no gaps.
            let last = "SELECT last FROM invoice_numbers WHERE id = 1 {lock}";
            let last = open.rows(last, &[]).await?;
            let none = || Fault::internal("invoice_numbers in the store is empty; restore its row");
            let number = last.first().ok_or_else(none)?.int(0)? + 1;
            let issued = open.rows(&of_month(), &values![application, month.begin()]).await?;
            if let Some(row) = issued.first() {
                let lines = open.rows(LINES, &values![row.int(0)?]).await?;
                return Ok((whole(row, &lines)?, false));
            }
            // What another one billed meanwhile may be of sums that are newer than these: minutes
            // would be taken back that are there.
            let now_billed = open.rows(BILLED, &before(application, month)).await?;
            if read_billed(&now_billed)? != billed {
                continue;
            }
            let draft = draft(application, month, price, &used, &billed)?;
            write(&mut open, &draft, number, now).await?;
            open.commit().await?;
            return Ok((Invoice { issued: Some((number, now)), ..draft }, true));
        }
        Err(Fault::unavailable(format!(
            "others issue invoices of {application:?} at the same time; issue this one again"
        )))
    }

    async fn issued(&self, application: &str, month: Month) -> Result<Option<Invoice>, Fault> {
        let of_month = (of_month(), values![application, month.begin()]);
        let Some(row) = self.reads.row(&of_month.0, &of_month.1).await? else { return Ok(None) };
        let lines = self.reads.rows(LINES, &values![row.int(0)?]).await?;
        whole(&row, &lines).map(Some)
    }

    /// What was issued, the newest first, without lines.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn list(&self, wanted: &Wanted) -> Result<Vec<Invoice>, Fault> {
        let mut filter = Filter::default();
        filter.and("application = ?", wanted.application.clone());
        filter.and("month_ms = ?", wanted.month.map(Month::begin));
        filter.and("number < ?", wanted.after);
        filter.values.push(wanted.count.into());
        let statement = format!(
            "SELECT {COLUMNS} FROM invoices WHERE 1 = 1{} ORDER BY number DESC LIMIT ?",
            filter.text
        );
        self.reads.rows(&statement, &filter.values).await?.iter().map(invoice).collect()
    }

    /// Whether an application used anything in a month or in those that are corrected with it: it
    /// may have been removed since.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn is_known(&self, application: &str, month: Month) -> Result<bool, Fault> {
        Ok(!self.used(application, month).await?.is_empty())
    }

    /// Minutes of a month and of those that are corrected with it, as the API tells them.
    async fn used(&self, application: &str, month: Month) -> Result<BTreeMap<Month, i64>, Fault> {
        let span = span(Some(application), month.back(limits::MONTHS_CORRECTED), month);
        let rows = self.sums.usage(&span, By::Month, false).await?;
        Ok(rows.iter().map(|row| (Month::of(row.at), row.participant_minutes)).collect())
    }
}

fn span(application: Option<&str>, first: Month, last: Month) -> Span {
    Span { application: application.map(str::to_owned), from: first.begin(), to: last.end() }
}

/// What would be issued: the month's minutes, then by how many those of months before became more or
/// fewer since these were.
fn draft(
    application: &str,
    month: Month,
    price: Price,
    used: &BTreeMap<Month, i64>,
    billed: &[Billed],
) -> Result<Invoice, Fault> {
    let line = |month: Month, minutes: i64, micros: i64| {
        let amount = money::amount(minutes, micros, price.decimals)?;
        Ok::<_, Fault>(Line { month, minutes, price: micros, amount })
    };
    let own = used.get(&month).copied().unwrap_or_default();
    let mut lines = vec![line(month, own, price.micros)?];
    for billed in billed {
        let late = late(used.get(&billed.month), billed.minutes);
        if late < -limits::MINUTES_GIVEN_BACK && late < -billed.minutes / 2 {
            return Err(Fault::conflict(format!(
                "{} minutes of {} were billed, and the statistics know of {} less: were they moved, or \
                 restored in part? Bring them back, then ask again",
                billed.minutes, billed.month, -late
            )));
        }
        if late != 0 {
            // Where that month was issued in another currency, this invoice's price is all there is.
            let is_same = billed.currency == price.currency;
            let micros = if is_same { billed.price } else { price.micros };
            lines.push(line(billed.month, late, micros)?);
        }
    }
    Ok(Invoice {
        issued: None,
        application: application.to_owned(),
        month,
        price: Price { application: Some(application.to_owned()), from: month, ..price },
        minutes: lines.iter().map(|line| line.minutes).sum(),
        total: money::sum(lines.iter().map(|line| line.amount))?,
        lines,
    })
}

/// By how many minutes a month that was issued is corrected. Sums that know nothing of it at all are
/// those of another store, as after statistics moved: they take nothing back.
fn late(used: Option<&i64>, billed: i64) -> i64 {
    used.map_or(0, |used| used - billed)
}

async fn write(open: &mut Open, draft: &Invoice, number: i64, now: i64) -> Result<(), Fault> {
    let Invoice { application, month, price, minutes, total, lines, .. } = draft;
    let Price { currency, decimals, micros, issuer, .. } = price;
    let row = values![
        number,
        application,
        month.begin(),
        now,
        currency,
        *decimals,
        *micros,
        issuer,
        *minutes,
        *total
    ];
    let statement = format!("INSERT INTO invoices ({COLUMNS}) VALUES ({})", times("?", row.len()));
    open.execute(&statement, &row).await?;
    for (place, line) in lines.iter().enumerate() {
        open.execute(
            "INSERT INTO invoice_lines
             (number, place, application, month_ms, minutes, micros, amount_micros)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            &values![
                number,
                place,
                application,
                line.month.begin(),
                line.minutes,
                line.price,
                line.amount
            ],
        )
        .await?;
    }
    let statement = "UPDATE invoice_numbers SET last = ? WHERE id = 1";
    open.execute(statement, &values![number]).await.map(|_| ())
}

const COLUMNS: &str = "number, application, month_ms, issued_ms, currency, decimals, micros, \
    issuer, minutes, total_micros";

const LINES: &str = "SELECT month_ms, minutes, micros, amount_micros FROM invoice_lines
    WHERE number = ? ORDER BY place";

fn of_month() -> String {
    format!("SELECT {COLUMNS} FROM invoices WHERE application = ? AND month_ms = ?")
}

/// See [`read_billed`].
const BILLED: &str = "SELECT i.month_ms, i.currency, i.micros, CAST(SUM(l.minutes) AS {int})
    FROM invoices i
    JOIN invoice_lines l ON l.application = i.application AND l.month_ms = i.month_ms
    WHERE i.application = ? AND i.month_ms >= ? AND i.month_ms < ?
    GROUP BY i.month_ms, i.currency, i.micros ORDER BY i.month_ms";

/// Which of [`BILLED`] are corrected with a month.
fn before(application: &str, month: Month) -> [Value; 3] {
    values![application, month.back(limits::MONTHS_CORRECTED).begin(), month.begin()]
}

fn read_billed(rows: &[Row]) -> Result<Vec<Billed>, Fault> {
    let billed = |row: &Row| {
        Ok(Billed {
            month: Month::of(row.int(0)?),
            currency: row.text(1)?,
            price: row.int(2)?,
            minutes: row.int(3)?,
        })
    };
    rows.iter().map(billed).collect()
}

fn invoice(row: &Row) -> Result<Invoice, Fault> {
    let (application, month) = (row.text(1)?, Month::of(row.int(2)?));
    let price = Price {
        application: Some(application.clone()),
        from: month,
        currency: row.text(4)?,
        decimals: usize::try_from(row.int(5)?).unwrap_or_default(),
        micros: row.int(6)?,
        issuer: row.text(7)?,
    };
    Ok(Invoice {
        issued: Some((row.int(0)?, row.int(3)?)),
        application,
        month,
        price,
        minutes: row.int(8)?,
        total: row.int(9)?,
        lines: Vec::new(),
    })
}

fn whole(row: &Row, lines: &[Row]) -> Result<Invoice, Fault> {
    let line = |row: &Row| {
        Ok(Line {
            month: Month::of(row.int(0)?),
            minutes: row.int(1)?,
            price: row.int(2)?,
            amount: row.int(3)?,
        })
    };
    let lines = lines.iter().map(line).collect::<Result<_, Fault>>()?;
    Ok(Invoice { lines, ..invoice(row)? })
}

#[cfg(test)]
mod tests;
