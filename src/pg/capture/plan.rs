//! What one trigger captures: its attachment, worked out against the columns of the table that it stands on.
//!
//! A plan is built once per backend and trigger, and thrown away when the table, an attachment or an endpoint changes.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::catalog::{self, Tables};
use super::column::{Column, Context, position};
use super::expand::{Expansion, Wanted};
use super::row::{Values, changed};
use crate::event::{Operation, Pattern};
use crate::pg::encoding::Text;

/// The operations, in the order of [`Plan::events`].
pub(super) const OPERATIONS: [Operation; 4] =
    [Operation::Created, Operation::Updated, Operation::Deleted, Operation::Truncated];

/// The index in [`Plan::events`] of what `webhook_backfill` raises.
pub(in crate::pg) const SNAPSHOT: usize = 4;

/// What a trigger captures.
pub(super) struct Plan {
    /// The table that the trigger stands on: of a partitioned table, the partition.
    pub(super) table: pg_sys::Oid,
    /// For this endpoint alone.
    pub(super) target: Option<i64>,
    /// Event types by operation; none where the attachment leaves it out.
    pub(super) events: [Option<Vec<u8>>; 5],
    /// Whether an endpoint wants them.
    pub(super) heard: [bool; 5],
    /// The columns that travel.
    pub(super) columns: Vec<Column>,
    /// The columns of the key.
    pub(super) key: Vec<Column>,
    /// Only a change of one of these raises an update; all captured columns if none.
    pub(super) watch: Option<Vec<Column>>,
    /// What travels beside the row.
    pub(super) expansions: Vec<Expansion>,
    /// Other tables on whose definition the plan depends.
    pub(super) depends: Vec<pg_sys::Oid>,
    /// Holds what the functions of the columns cache.
    _context: Context,
}

/// The id of the attachment that a trigger's name carries: `webhook_pg_<id>`, or `webhook_pg_<id>_<operation>`.
fn attachment_id(name: &CStr) -> Option<i64> {
    name.to_str().ok()?.strip_prefix("webhook_pg_")?.split('_').next()?.parse().ok()
}

unsafe extern "C-unwind" {
    /// catalog/partition.h: the parent, its parent and so on up to the root.
    fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
}

/// Whether the attachment's table is this one, or the one whose trigger was cloned to this partition. A trigger made
/// by hand with the name of another table's attachment fails this and captures nothing.
fn belongs(table: pg_sys::Oid, trigger: &pg_sys::Trigger, attached: pg_sys::Oid) -> bool {
    if table == attached {
        return true;
    }
    // SAFETY: a catalog lookup; the boundary turns its errors into unwinding.
    trigger.tgisclone
        && unsafe {
            let ancestors = pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(table));
            pg_sys::list_member_oid(ancestors, attached)
        }
}

impl Plan {
    /// Reads the attachment and the catalogs. `None`: the trigger captures nothing.
    ///
    /// # Safety
    /// Both come from the executor: an open, locked table and one of its triggers.
    pub(super) unsafe fn build(
        relation: pg_sys::Relation,
        trigger: &pg_sys::Trigger,
        tables: &Tables,
        listeners: &[Pattern],
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let (table, name) = unsafe { ((*relation).rd_id, CStr::from_ptr(trigger.tgname)) };
        let id = attachment_id(name)?;
        // SAFETY: as above.
        unsafe { Self::of(relation, id, tables, listeners, |attached| belongs(table, trigger, attached)) }
    }

    /// The plan of an attachment whose table `fits`.
    ///
    /// # Safety
    /// An open, locked table.
    pub(in crate::pg) unsafe fn of(
        relation: pg_sys::Relation,
        id: i64,
        tables: &Tables,
        listeners: &[Pattern],
        fits: impl Fn(pg_sys::Oid) -> bool,
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let (table, desc) = unsafe { ((*relation).rd_id, (*relation).rd_att) };
        let (mut events, mut heard) = ([const { None }; 5], [false; 5]);
        let mut lists = None;
        catalog::scan(tables.attachment, Some(id), |row| {
            let Some(attached) = row.oid("table_name").filter(|attached| fits(*attached)) else { return };
            let (resource, as_action) = (row.text("resource").unwrap_or_default(), row.text("as_action"));
            let actions = row.texts("actions").unwrap_or_default();
            for ((event, heard), operation) in events.iter_mut().zip(&mut heard).zip(OPERATIONS) {
                if !actions.iter().any(|action| action == operation.as_str().as_bytes()) {
                    continue;
                }
                let action = as_action.as_deref().unwrap_or(operation.as_str().as_bytes());
                let event_type = [resource.as_slice(), b".", action].concat();
                let event_type = Text::from(event_type);
                let text = event_type.plain();
                *heard = listeners.iter().any(|pattern| pattern.matches(&text));
                *event = Some(event_type.into_bytes());
            }
            events[SNAPSHOT] = Some([resource.as_slice(), b".snapshot"].concat());
            let expand = Wanted {
                names: row.texts("expand_names").unwrap_or_default(),
                sources: row.texts("expand_sources").unwrap_or_default(),
                path: row.texts("expand_path").unwrap_or_default(),
                attached,
            };
            lists = Some((
                row.texts("key"),
                row.texts("columns"),
                row.texts("exclude").unwrap_or_default(),
                row.texts("watch"),
                expand,
            ));
        });
        let (key, columns, exclude, watch, expand) = lists?;

        let context = Context::new();
        // SAFETY: the context belongs to the plan; the descriptor to the open table.
        let column = |at: usize| unsafe { Column::new(desc, at, context.0) };
        // SAFETY: as above.
        let found = |name: &Vec<u8>| unsafe { position(desc, name) };
        let positions: Vec<usize> = match &columns {
            Some(names) => names.iter().filter_map(found).collect(),
            // SAFETY: the descriptor of the open table.
            None => (0..unsafe { (*desc).natts } as usize).collect(),
        };
        let excluded: Vec<usize> = exclude.iter().filter_map(found).collect();
        let columns: Vec<Column> =
            positions.into_iter().filter(|at| !excluded.contains(at)).filter_map(column).collect();
        let key = match key {
            Some(names) => names.iter().filter_map(found).filter_map(column).collect(),
            // SAFETY: the caller's promise.
            None => unsafe { primary_key(relation) }.into_iter().filter_map(column).collect(),
        };
        let watch = watch.map(|names| names.iter().filter_map(found).filter_map(column).collect());
        let mut depends = Vec::new();
        // SAFETY: the caller's promise.
        let expansions = unsafe { expand.expansions(relation, tables, &columns, &mut depends) };
        Some(Self {
            table,
            target: None,
            events,
            heard,
            columns,
            key,
            watch,
            expansions,
            depends,
            _context: context,
        })
    }

    /// Whether an update is to be captured: a watched column changed, or any captured one if none is watched.
    ///
    /// # Safety
    /// Both hold rows of the plan's table.
    pub(super) unsafe fn wants_update(&self, old: &Values, new: &Values) -> bool {
        // SAFETY: the caller's promise.
        self.watch.as_ref().unwrap_or(&self.columns).iter().any(|column| unsafe { changed(column, old, new) })
    }
}

/// The positions of the primary key's columns, in its order.
///
/// # Safety
/// `relation` is an open, locked table.
unsafe fn primary_key(relation: pg_sys::Relation) -> Vec<usize> {
    let mut key = Vec::new();
    // SAFETY: catalog rows are read while the cache entry is held; `indkey` has `indnatts` elements.
    unsafe {
        let indexes = pg_sys::RelationGetIndexList(relation);
        for at in 0..pgrx::PgList::<std::ffi::c_void>::from_pg(indexes).len() {
            let oid = (*(*indexes).elements.add(at)).oid_value;
            let tuple = pg_sys::SearchSysCache1(
                pg_sys::SysCacheIdentifier::INDEXRELID as i32,
                pg_sys::Datum::from(oid),
            );
            if tuple.is_null() {
                continue;
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_index>();
            if (*form).indisprimary {
                let columns = (*form).indkey.values.as_ptr();
                key = (0..(*form).indnkeyatts as usize)
                    .filter_map(|at| usize::try_from(*columns.add(at) - 1).ok())
                    .collect();
            }
            pg_sys::ReleaseSysCache(tuple);
        }
        pg_sys::list_free(indexes);
    }
    key
}
