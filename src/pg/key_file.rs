//! The file that `webhook_pg.key_file` names, read anew at each use: it is small, and whoever changes it need not tell every
//! session.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::encoding::Text;
use super::transaction::transaction;
use super::{api, guc};
use crate::error::{Error, Kind, Result};
use crate::keyring::{Keyring, Place};
use crate::secret::Secret;

const RESEAL: &str = include_str!("../../sql/statements/reseal.sql");
/// Bytes of a key file at most.
const MAX_BYTES: u64 = 64 * 1024;

/// The keys in force; `None` without a key file.
///
/// # Errors
/// [`Kind::WrongState`] for a file that cannot be read, that others may read too, or that holds no keys.
fn keyring() -> Result<Option<Keyring>> {
    let Some(path) = guc::key_file() else { return Ok(None) };
    let text = read(OsStr::from_bytes(path.to_bytes())).map_err(|cause| unusable(&cause.to_string()))?;
    Keyring::parse(&text).map(Some).map_err(|e| unusable(&e.detail.unwrap_or(e.message)))
}

fn unusable(cause: &str) -> Error {
    Error::new(Kind::WrongState, "key file cannot be used")
        .detail(format!("webhook_pg.key_file: {}.", cause.trim_end_matches('.')))
        .hint("Secrets are neither kept nor opened without it. See webhook_status().")
}

/// Refuses what PostgreSQL refuses as ssl_key_file.
fn read(path: &OsStr) -> io::Result<String> {
    // A pipe must not make anybody wait.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    // SAFETY: has no preconditions.
    let own = about.uid() == unsafe { libc::geteuid() };
    let refuse = |why: &str| Err(io::Error::other(why.to_owned()));
    if !about.is_file() {
        return refuse("it is not a regular file");
    }
    if !own && about.uid() != 0 {
        return refuse("it must be owned by the database user or root");
    }
    if about.mode() & (if own { 0o077 } else { 0o037 }) != 0 {
        return refuse(
            "others may read or write it; its mode must be 0600 or less, or 0640 or less if root owns it",
        );
    }
    let mut text = String::new();
    match file.by_ref().take(MAX_BYTES + 1).read_to_string(&mut text)? {
        n if n as u64 > MAX_BYTES => refuse("it is too long"),
        _ => Ok(text),
    }
}

/// Seals what is not sealed with the first key, in a transaction of the worker's. A secret that somebody is changing waits for
/// the next time.
///
/// # Errors
/// In one line what is wrong with the key file, or what PostgreSQL said.
pub(super) fn reseal() -> std::result::Result<(), String> {
    match keyring() {
        Ok(None) => return Ok(()),
        Err(error) => return Err(format!("{error}: {}", error.detail.as_deref().unwrap_or_default())),
        Ok(Some(_)) => {}
    }
    transaction(|| Spi::run(RESEAL).map_err(|error| error.to_string()))
}

#[pg_extern(sql = false)]
fn seal(
    endpoint: i64,
    kind: Text,
    name: Text,
    secret: Text,
) -> std::result::Result<Option<Text>, ErrorReport> {
    let Some(keyring) = keyring()? else { return Ok(None) };
    let (kind, name) = (kind.plain(), name.plain());
    let place = Place { endpoint, kind: &kind, name: &name };
    let sealed = keyring.seal(api::random()?, place, &Secret::new(secret.plain()));
    let sealed = sealed.ok_or_else(|| Error::new(Kind::WrongState, "secret cannot be sealed"))?;
    Ok(Some(Text::of(&sealed)))
}

#[pg_extern(sql = false)]
fn unseal(endpoint: i64, kind: Text, name: Text, sealed: Text) -> Option<Text> {
    let (kind, name) = (kind.plain(), name.plain());
    let secret = keyring().ok()??.open(Place { endpoint, kind: &kind, name: &name }, &sealed.plain())?;
    Some(Text::of(secret.reveal()))
}

#[pg_extern(sql = false)]
fn key_ids() -> Vec<String> {
    keyring().ok().flatten().map(|keyring| keyring.ids()).unwrap_or_default()
}

#[pg_extern(sql = false)]
fn key_file_fault() -> Option<Text> {
    keyring().err().and_then(|error| error.detail).as_deref().map(Text::of)
}
