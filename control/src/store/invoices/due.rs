//! What is to be issued.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Invoices, Month, late, span};
use crate::fault::Fault;
use crate::limits;
use crate::store::analytics::Filter;
use crate::store::sums::By;

/// Minutes that are on no invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose.
    pub application: String,
    /// A month without an invoice.
    pub month: Month,
    /// Its own, and by how many those of issued months before it became more or fewer since: these
    /// are told of the first month after theirs that has no invoice.
    pub minutes: i64,
}

impl Invoices {
    /// Months that an invoice is lacking of: one, or that of `now` and all that are corrected with
    /// it. Those that are over come first, of these the newest, then by name.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn due(
        &self,
        application: Option<&str>,
        month: Option<Month>,
        now: i64,
    ) -> Result<Vec<Due>, Fault> {
        let last = month.unwrap_or_else(|| Month::of(now));
        let first = last.back(limits::MONTHS_CORRECTED);
        let billed = self.billed(application, first, last).await?;
        let used = self.sums.usage(&span(application, first, last), By::Month, true).await?;
        let mut due: BTreeMap<(String, Month), i64> = BTreeMap::new();
        for used in used {
            let Some(application) = used.application else { continue };
            let (month, minutes) = (Month::of(used.at), used.participant_minutes);
            let key = (application, month);
            if let Some(issued) = billed.get(&key) {
                let late = late(Some(&minutes), *issued);
                let mut next = (key.0, month.back(-1));
                while billed.contains_key(&next) {
                    next.1 = next.1.back(-1);
                }
                if late != 0 && next.1 <= last {
                    *due.entry(next).or_default() += late;
                }
            } else if minutes > 0 {
                *due.entry(key).or_default() += minutes;
            }
        }
        let due = due.into_iter().filter(|((_, of), _)| month.is_none_or(|month| month == *of));
        let mut due: Vec<Due> = due
            .map(|((application, month), minutes)| Due { application, month, minutes })
            .collect();
        // As they are by name already.
        due.sort_by_key(|due| (now < due.month.end(), Reverse(due.month)));
        Ok(due)
    }

    /// How many minutes of months that were issued are on whichever invoice.
    async fn billed(
        &self,
        application: Option<&str>,
        first: Month,
        last: Month,
    ) -> Result<BTreeMap<(String, Month), i64>, Fault> {
        let mut filter = Filter::default();
        filter.and("i.month_ms >= ?", Some(first.begin()));
        filter.and("i.month_ms <= ?", Some(last.begin()));
        filter.and("i.application = ?", application.map(str::to_owned));
        let statement = format!(
            "SELECT i.application, i.month_ms, CAST(SUM(l.minutes) AS {{int}}) FROM invoices i
             JOIN invoice_lines l ON l.application = i.application AND l.month_ms = i.month_ms
             WHERE 1 = 1{} GROUP BY i.application, i.month_ms",
            filter.text
        );
        let rows = self.reads.rows(&statement, &filter.values).await?;
        let rows = rows.iter();
        rows.map(|row| Ok(((row.text(0)?, Month::of(row.int(1)?)), row.int(2)?))).collect()
    }
}
