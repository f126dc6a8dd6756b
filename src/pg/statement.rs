//! A statement of `sql/statements/`, prepared once per process and kept.

use std::cell::RefCell;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};

/// One statement. PostgreSQL re-plans it when what it stands on changes.
pub struct Statement {
    text: &'static str,
    plan: RefCell<Option<OwnedPreparedStatement>>,
}

impl Statement {
    /// A statement of this text.
    pub const fn new(text: &'static str) -> Self {
        Self { text, plan: RefCell::new(None) }
    }

    /// Runs it. The types of the first call's arguments are the statement's types.
    ///
    /// # Errors
    /// Only for a wrong call; what PostgreSQL refuses is raised.
    pub fn read<'conn>(
        &self,
        client: &SpiClient<'conn>,
        args: &[DatumWithOid<'_>],
    ) -> spi::SpiResult<SpiTupleTable<'conn>> {
        let mut plan = self.plan.borrow_mut();
        if plan.is_none() {
            let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
            *plan = Some(client.prepare(self.text, &types)?.keep());
        }
        match plan.as_ref() {
            Some(plan) => client.select(plan, None, args),
            None => client.select(self.text, None, args),
        }
    }

    /// Runs it; it may write.
    ///
    /// # Errors
    /// Only for a wrong call; what PostgreSQL refuses is raised.
    pub fn write(&self, client: &mut SpiClient<'_>, args: &[DatumWithOid<'_>]) -> spi::SpiResult<()> {
        self.change(client, args).map(drop)
    }

    /// Runs it; it may write, and answers rows.
    ///
    /// # Errors
    /// Only for a wrong call; what PostgreSQL refuses is raised.
    pub fn change<'conn>(
        &self,
        client: &mut SpiClient<'conn>,
        args: &[DatumWithOid<'_>],
    ) -> spi::SpiResult<SpiTupleTable<'conn>> {
        let mut plan = self.plan.borrow_mut();
        if plan.is_none() {
            let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
            *plan = Some(client.prepare_mut(self.text, &types)?.keep());
        }
        match plan.as_ref() {
            Some(plan) => client.update(plan, None, args),
            None => client.update(self.text, None, args),
        }
    }
}
