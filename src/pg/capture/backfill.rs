//! `webhook_backfill`: the rows that are there already, as `<resource>.snapshot` events for one endpoint.
//!
//! **Consistent with the live stream**: a row is in the snapshot, or its change comes as an event, or both; never neither. And
//! by timestamps it is clear which is newer.
//!
//! 1. All events of the backfill get the time `t`, now.
//! 2. Transactions that are writing to the table now are waited for, as CREATE INDEX CONCURRENTLY does. What they changed is in
//!    the snapshot, and what they raised is older than `t`.
//! 3. The snapshot is taken. What it does not see is written by transactions that began to write after 2: they know the
//!    endpoint, and their events are newer than `t`.
//!
//! An event newer than `t` may tell of a change that the snapshot contains, and may arrive before the snapshot of its row: whoever
//! keeps the newest timestamp of a row is right.

use std::ffi::{CStr, CString};
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::cache;
use super::catalog;
use super::plan::{Plan, SNAPSHOT};
use crate::error::{Error, Kind, Result};
use crate::pg::api::caller;
use crate::pg::columns::{attribute, attribute_name};
use crate::pg::condition::Condition;
use crate::pg::encoding::{self, Text};
use crate::pg::report::spi;
use crate::pg::table::{Table, as_owner};

const ROWS: &str = include_str!("../../../sql/statements/backfill.sql");
const CHECK_FEEDABLE: &str = include_str!("../../../sql/statements/check_feedable.sql");
const NOTE: &str = include_str!("../../../sql/statements/write_bulk.sql");
const CONDITION_HINT: &str = "Write an expression over the columns of the table, such as status = 'open'.";
/// Rows fetched at a time.
const BATCH: std::ffi::c_long = 1000;

unsafe extern "C-unwind" {
    /// catalog/pg_inherits.h: the table and everything below it.
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lockmode: pg_sys::LOCKMODE,
        numparents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

/// Sends the rows of a table that are there now to one endpoint, and answers how many events that makes.
///
/// # Errors
/// 22004 and 42704 for what is not an endpoint, 42501 for an endpoint of somebody else's or a table that the caller may not read,
/// 55000 for a table that is not attached or an endpoint that is inactive, and what PostgreSQL says of the condition.
#[pg_extern(sql = false)]
fn webhook_backfill(
    table_name: Option<pg_sys::Oid>,
    endpoint: Option<i64>,
    condition: Option<Text>,
) -> std::result::Result<i64, ErrorReport> {
    let table = Table::find(table_name)?;
    let condition = condition.map(|text| Condition::parse(text, CONDITION_HINT)).transpose()?;
    let caller = caller()?;
    as_owner(|| Spi::run_with_args(CHECK_FEEDABLE, &[endpoint.into(), caller.into()])).map_err(spi)?;
    let Some(endpoint) = endpoint else { return Ok(0) };
    // SAFETY: the lock is kept until the end of the transaction, so that the table stays as it is.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table.oid, lock);
        let plans = plans(&table, relation, endpoint)?;
        let time = super::now();
        wait_for_writers(table.oid);
        let statement = statement(&table, relation, condition.as_ref());
        let send = || send(&statement, relation, &plans, time);
        let count = condition.as_ref().map_or_else(send, |condition| condition.explaining(send));
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        if count > 0 {
            as_owner(|| Spi::run_with_args(NOTE, &[endpoint.into(), count.into()])).map_err(spi)?;
        }
        Ok(count)
    }
}

/// What the attachments of the table make of its rows. Those that call changes by another name are left out: a row that
/// stands there is no such action.
///
/// # Safety
/// An open, locked table.
unsafe fn plans(table: &Table, relation: pg_sys::Relation, endpoint: i64) -> Result<Vec<Rc<Plan>>> {
    let tables =
        cache::tables().ok_or_else(|| Error::new(Kind::WrongState, "webhook_pg is not installed"))?;
    let mut ids = Vec::new();
    catalog::scan(tables.attachment, None, |row| {
        if row.oid("table_name") == Some(table.oid) && row.text("as_action").is_none() {
            ids.extend(row.int8("id"));
        }
    });
    // SAFETY: the caller's promise.
    let plan = |id: i64| unsafe { Plan::of(relation, id, &tables, &[], |attached| attached == table.oid) };
    let plans: Vec<_> = ids
        .into_iter()
        .filter_map(plan)
        .map(|mut plan| {
            plan.target = Some(endpoint);
            Rc::new(plan)
        })
        .collect();
    if plans.is_empty() {
        return Err(Error::new(
            Kind::WrongState,
            format!("table {} is not attached", table.qualified.plain()),
        )
        .hint("Its later changes would be missed: call webhook_attach first."));
    }
    Ok(plans)
}

/// Waits for the transactions that are writing to the table, or to a partition of it, at this moment.
///
/// # Safety
/// Inside a transaction.
unsafe fn wait_for_writers(table: pg_sys::Oid) {
    // SAFETY: a list of oids in the current memory context; lock tags are plain values.
    unsafe {
        let inheritors = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            find_all_inheritors(table, pg_sys::NoLock as pg_sys::LOCKMODE, std::ptr::null_mut())
        });
        for oid in pgrx::PgList::<std::ffi::c_void>::from_pg(inheritors).iter_oid() {
            let tag = pg_sys::LOCKTAG {
                locktag_field1: pg_sys::MyDatabaseId.to_u32(),
                locktag_field2: oid.to_u32(),
                locktag_field3: 0,
                locktag_field4: 0,
                locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
                locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
            };
            pg_sys::WaitForLockers(tag, pg_sys::ShareLock as pg_sys::LOCKMODE, false);
        }
    }
}

/// Reads the columns that a row stores, in their order.
///
/// # Safety
/// An open, locked table.
unsafe fn statement(table: &Table, relation: pg_sys::Relation, condition: Option<&Condition>) -> CString {
    let mut columns = Vec::new();
    // SAFETY: the caller's promise; the quoted names are copied.
    let only = unsafe {
        for at in stored(relation) {
            let name = CString::new(attribute_name(attribute((*relation).rd_att, at))).unwrap_or_default();
            if !columns.is_empty() {
                columns.extend_from_slice(b", ");
            }
            columns.extend_from_slice(CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())).to_bytes());
        }
        (*(*relation).rd_rel).relkind as u8 != b'p'
    };
    let condition = condition.map_or(b"true".as_slice(), |condition| condition.text().bytes());
    encoding::statement(
        ROWS,
        &[
            ("columns", &columns),
            ("only", if only { b"ONLY " } else { b"" }),
            ("table", table.qualified.bytes()),
            ("condition", condition),
        ],
    )
}

/// The positions of the columns that have a value in a stored row.
///
/// # Safety
/// An open table.
unsafe fn stored(relation: pg_sys::Relation) -> impl Iterator<Item = usize> {
    // SAFETY: the caller's promise.
    let desc = unsafe { (*relation).rd_att };
    // SAFETY: as above.
    (0..unsafe { (*desc).natts } as usize).filter(move |at| {
        // SAFETY: as above.
        let attribute = unsafe { attribute(desc, *at) };
        #[cfg(feature = "pg18")]
        if attribute.attgenerated as u8 == b'v' {
            return false;
        }
        !attribute.attisdropped
    })
}

/// Raises the events, and answers how many.
///
/// # Safety
/// An open, locked table; the statement answers its stored columns.
unsafe fn send(statement: &CStr, relation: pg_sys::Relation, plans: &[Rc<Plan>], time: i64) -> i64 {
    let mut count = 0;
    // SAFETY: what a procedural language does with a cursor. The snapshot is the newest, whatever the isolation level: an older
    // one would miss what was committed before the endpoint was there.
    unsafe {
        let desc = (*relation).rd_att;
        let places: Vec<usize> = stored(relation).collect();
        pg_sys::SPI_connect();
        let plan = pg_sys::SPI_prepare(statement.as_ptr(), 0, std::ptr::null_mut());
        if plan.is_null() {
            error!("the rows could not be read");
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let cursor =
            pg_sys::SPI_cursor_open(std::ptr::null(), plan, std::ptr::null_mut(), std::ptr::null(), true);
        pg_sys::PopActiveSnapshot();
        let batch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"webhook_pg backfill".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let natts = (*desc).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); natts], vec![true; natts]);
        loop {
            pg_sys::SPI_cursor_fetch(cursor, true, BATCH);
            let rows = pg_sys::SPI_processed as usize;
            if rows == 0 {
                break;
            }
            let table = pg_sys::SPI_tuptable;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = batch;
            let mut read = super::row::Values::default();
            for at in 0..rows {
                pgrx::check_for_interrupts!();
                read.read(*(*table).vals.add(at), (*table).tupdesc);
                for (from, to) in places.iter().enumerate() {
                    let value = read.at(from);
                    (values[*to], nulls[*to]) = (value.unwrap_or(pg_sys::Datum::null()), value.is_none());
                }
                let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
                for plan in plans {
                    super::raise(plan.clone(), SNAPSHOT, time, None, desc, (tuple, std::ptr::null_mut()));
                    count += 1;
                }
                pg_sys::MemoryContextReset(batch);
            }
            pg_sys::CurrentMemoryContext = before;
            pg_sys::SPI_freetuptable(table);
        }
        pg_sys::SPI_cursor_close(cursor);
        pg_sys::SPI_finish();
    }
    super::buffer::flush();
    count
}
