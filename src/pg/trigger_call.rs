//! The call of a trigger function by PostgreSQL. By hand, because pgrx's wrapper panics when somebody calls one outside of a
//! trigger, and costs more than most rows.

use pgrx::prelude::*;

/// What the trigger function of this name is called with; an error outside of a trigger.
///
/// # Safety
/// The argument is what PostgreSQL's function manager calls a function with. The data are valid until that returns.
pub(super) unsafe fn data<'a>(fcinfo: pg_sys::FunctionCallInfo, name: &str) -> &'a pg_sys::TriggerData {
    // SAFETY: a trigger's context is its TriggerData; the executor keeps what it points to.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("{name}() can only be called as a trigger")
            );
        }
        &*context.cast::<pg_sys::TriggerData>()
    }
}

/// What a BEFORE ROW trigger answers to let the row go on as it is.
pub(super) fn row_as_it_is(trigger: &pg_sys::TriggerData) -> pg_sys::Datum {
    let update = trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE;
    pg_sys::Datum::from(if update { trigger.tg_newtuple } else { trigger.tg_trigtuple })
}
