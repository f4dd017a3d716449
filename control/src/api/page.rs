//! Lists, page by page.

use crate::fault::Fault;
use crate::limits;

/// How many items a page has.
pub fn count(limit: Option<usize>) -> Result<usize, Fault> {
    let count = limit.unwrap_or(50);
    if !(1..=limits::PAGE_ITEMS).contains(&count) {
        return Err(Fault::malformed(format!(
            "limit is {count}; give 1 to {}, and go on with cursor",
            limits::PAGE_ITEMS
        )));
    }
    Ok(count)
}

/// The items of a page, of which one more was asked for, and where the list goes on, if it does.
pub fn cut<T>(
    mut items: Vec<T>,
    count: usize,
    cursor: impl Fn(&T) -> Option<String>,
) -> (Vec<T>, Option<String>) {
    let has_more = items.len() > count;
    items.truncate(count);
    let next = items.last().filter(|_| has_more).and_then(cursor);
    (items, next)
}

/// A cursor of a list by time.
pub fn cursor(at: i64, id: &str) -> String {
    format!("{at}.{id}")
}

/// Reads [`cursor`].
pub fn read_cursor(text: &str) -> Result<(i64, String), Fault> {
    let parts = text.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    parts.ok_or_else(unknown)
}

/// What is asked for goes on from nowhere.
pub fn unknown() -> Fault {
    Fault::malformed("cursor is none of ours; take `next` as it was told")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_where_there_is_more() {
        let pages = |items: Vec<i64>| cut(items, 2, |last| Some(cursor(*last, "s-1")));
        assert_eq!(pages(vec![]), (vec![], None));
        assert_eq!(pages(vec![5, 4]), (vec![5, 4], None));
        let (items, next) = pages(vec![5, 4, 3]);
        assert_eq!((items, next.as_deref()), (vec![5, 4], Some("4.s-1")));
        assert_eq!(read_cursor(&next.unwrap()).unwrap(), (4, "s-1".to_owned()));
        assert!(read_cursor("4").is_err() && read_cursor("x.s-1").is_err());
        assert!(count(Some(0)).is_err() && count(Some(limits::PAGE_ITEMS + 1)).is_err());
        assert_eq!(count(None).unwrap(), 50);
    }
}
