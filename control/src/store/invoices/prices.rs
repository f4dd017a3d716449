//! What minutes cost, from which month on.

use super::month::Month;
use crate::fault::Fault;
use crate::store::sql::{Pool, Row, values};
use crate::{id, limits};

/// The table of prices.
#[derive(Clone)]
pub struct Prices {
    pool: Pool,
    reads: Pool,
}

/// What 1,000 participant minutes cost from a month on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Of which; none is any that has no price of its own.
    pub application: Option<String>,
    /// The first month.
    pub from: Month,
    /// Three letters (ISO 4217).
    pub currency: String,
    /// How many decimals amounts are rounded to.
    pub decimals: usize,
    /// In millionths of the currency, for 1,000 minutes.
    pub micros: i64,
    /// What invoices say of who issues them.
    pub issuer: String,
}

impl Price {
    /// # Errors
    /// [`crate::fault::Class::Malformed`].
    fn check(&self) -> Result<(), Fault> {
        if let Some(application) = &self.application {
            check_application(application)?;
        }
        let Self { currency, decimals, issuer, .. } = self;
        if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_uppercase()) {
            return Err(Fault::malformed(format!(
                "{currency:?} is no currency; give the three letters of ISO 4217, as EUR"
            )));
        }
        if *decimals > limits::MONEY_DECIMALS {
            let most = limits::MONEY_DECIMALS;
            return Err(Fault::malformed(format!(
                "{decimals} decimals are more than any currency has; give 0 to {most}"
            )));
        }
        let is_odd = |c: char| c.is_control() && c != '\n';
        if issuer.len() > limits::ISSUER_BYTES || issuer.chars().any(is_odd) {
            let most = limits::ISSUER_BYTES;
            return Err(Fault::malformed(format!(
                "the issuer is no text of at most {most} bytes; give a name and an address in lines"
            )));
        }
        Ok(())
    }
}

impl Prices {
    pub(in crate::store) fn new(pool: Pool, reads: Pool) -> Self {
        Self { pool, reads }
    }

    /// Sets a price, in place of that of the same application and month. What was issued stays.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`], [`crate::fault::Class::TooMany`],
    /// [`crate::fault::Class::Internal`].
    pub async fn set(&self, price: &Price) -> Result<(), Fault> {
        price.check()?;
        let Price { application, from, currency, decimals, micros, issuer } = price;
        let application = application.as_deref().unwrap_or_default();
        let row = values![application, from.begin(), currency, *decimals, *micros, issuer];
        let mut open = self.pool.begin().await?;
        open.execute(
            "INSERT INTO prices (application, from_ms, currency, decimals, micros, issuer)
             VALUES (?, ?, ?, ?, ?, ?) {if there:application, from_ms}
             currency = {new:currency}, decimals = {new:decimals}, micros = {new:micros},
             issuer = {new:issuer}",
            &row,
        )
        .await?;
        let count = open.rows("SELECT COUNT(*) FROM prices", &[]).await?;
        let count = count.first().map_or(Ok(0), |row| row.int(0))?;
        if usize::try_from(count).unwrap_or(usize::MAX) > limits::PRICES {
            return Err(Fault::too_many(format!(
                "there are {} prices, all there may be; remove some that are not valid any more",
                limits::PRICES
            )));
        }
        open.commit().await
    }

    /// Removes a price.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`], [`crate::fault::Class::NotFound`],
    /// [`crate::fault::Class::Internal`].
    pub async fn remove(&self, application: Option<&str>, from: Month) -> Result<(), Fault> {
        // An empty one is everybody's in the table, which nobody asked for who names one.
        application.map_or(Ok(()), check_application)?;
        let statement = "DELETE FROM prices WHERE application = ? AND from_ms = ?";
        let values = values![application.unwrap_or_default(), from.begin()];
        match self.pool.execute(statement, &values).await? {
            0 => Err(Fault::not_found(format!("there is no price from {from} on; see /prices"))),
            _ => Ok(()),
        }
    }

    /// All prices: those of any application first, the newest of each first.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn list(&self) -> Result<Vec<Price>, Fault> {
        let statement = format!("SELECT {COLUMNS} FROM prices ORDER BY application, from_ms DESC");
        self.reads.rows(&statement, &[]).await?.iter().map(price).collect()
    }

    /// What an application's minutes of a month cost: by its own price, or by that of any.
    ///
    /// # Errors
    /// [`crate::fault::Class::Conflict`]: nobody set one.
    pub async fn valid(&self, application: &str, month: Month) -> Result<Price, Fault> {
        let statement = format!(
            "SELECT {COLUMNS} FROM prices WHERE (application = ? OR application = '')
             AND from_ms <= ? ORDER BY application DESC, from_ms DESC LIMIT 1"
        );
        let row = self.reads.row(&statement, &values![application, month.begin()]).await?;
        row.map(|row| price(&row)).transpose()?.ok_or_else(|| {
            Fault::conflict(format!(
                "minutes of {month} have no price; an operator sets one with PUT /api/v1/prices"
            ))
        })
    }
}

fn check_application(name: &str) -> Result<(), Fault> {
    id::check_name("the application's identifier", name, limits::APPLICATION_BYTES)
}

const COLUMNS: &str = "application, from_ms, currency, decimals, micros, issuer";

fn price(row: &Row) -> Result<Price, Fault> {
    Ok(Price {
        application: Some(row.text(0)?).filter(|name| !name.is_empty()),
        from: Month::of(row.int(1)?),
        currency: row.text(2)?,
        decimals: usize::try_from(row.int(3)?).unwrap_or_default(),
        micros: row.int(4)?,
        issuer: row.text(5)?,
    })
}
