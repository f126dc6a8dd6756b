//! Keeps what a subscription applies away from the private tables: another server's events, positions and endpoints.

use pgrx::prelude::*;

use super::trigger_call;

/// Tells PostgreSQL that [`webhook_pg_keep_out`] follows the version 1 calling convention.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_webhook_pg_keep_out() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// The trigger function `webhook.keep_out()`, BEFORE ROW: drops the row if an apply or a table synchronisation worker brings it.
/// What our own functions write in such a worker, for an attachment that fires always, runs as the extension's owner, and
/// goes through.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn webhook_pg_keep_out(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: a trigger's context is its TriggerData, whose tuples the executor keeps.
    unsafe {
        let trigger = trigger_call::data(fcinfo, "webhook.keep_out");
        let (mut user, mut security) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut security);
        if pg_sys::IsLogicalWorker() && security & pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32 == 0 {
            return pg_sys::Datum::null();
        }
        trigger_call::row_as_it_is(trigger)
    }
}
