//! The books: what was committed against what arrived.

use std::collections::BTreeSet;

use postgres::Client;

use crate::receiver::Receiver;

/// Rows of a table whose every row was inserted once, against the requests of one receiver.
#[derive(Debug)]
pub struct Ledger {
    /// Rows that are committed.
    pub committed: BTreeSet<i64>,
    /// Committed, but never answered 2xx.
    pub lost: BTreeSet<i64>,
    /// Received, but not committed.
    pub ghosts: BTreeSet<i64>,
    /// 2xx answers above one for the same `webhook-id`.
    pub duplicates: usize,
}

impl Ledger {
    /// Compares at this moment.
    pub fn read(client: &mut Client, table: &str, receiver: &Receiver) -> Self {
        let rows = client.query(&format!("SELECT id FROM public.{table}"), &[]).expect("read the table");
        let committed: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let received: BTreeSet<i64> = receiver.rows().into_iter().collect();
        let accepted = receiver.accepted();
        Self {
            lost: committed.difference(&accepted).copied().collect(),
            ghosts: received.difference(&committed).copied().collect(),
            duplicates: receiver.duplicates(),
            committed,
        }
    }
}
