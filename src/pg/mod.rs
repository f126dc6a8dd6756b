//! The only user of pgrx.
