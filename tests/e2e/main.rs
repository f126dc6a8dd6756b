//! End-to-end tests: a real server, a real worker, real receivers. One promise per test.
//!
//! They need a PostgreSQL in which the extension is installed: `WEBHOOK_PG_BIN` names its bin directory, and without
//! it the one that `pg_config` names is taken. Every cluster is private, and nothing is left behind.
//!
//! Tests that only watch deliveries share one cluster, each with a table, an endpoint and a receiver of its own
//! ([`scene::Scene`]). A test that hurts the server or the worker, or times them, has a cluster of its own.

// Helpers outside of #[test] functions fail a test by panicking, and a test binary exports nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod cluster;
mod ledger;
mod os;
mod receiver;
mod scene;
mod site;
mod size;
mod tree;
mod wait;
mod wire;
mod writers;

mod answers;
mod backfill;
mod backlog;
mod bulk;
mod capture;
mod clock;
mod copies;
mod crash;
mod crm;
mod database_commands;
mod databases;
mod ddl;
mod delivery;
mod documents;
mod dump;
mod durability;
mod egress;
mod encodings;
mod errors;
mod expand;
mod faults;
mod formats;
mod harness;
mod idle;
mod key_file;
mod kinds;
mod lag;
mod large;
mod lifecycle;
mod logical;
mod monitoring;
// Of the tests of src/http, which use more of it.
#[allow(dead_code)]
#[path = "../http/name_server.rs"]
mod name_server;
mod names;
mod neighbours;
mod order;
mod outages;
mod payloads;
mod policy;
mod preview;
mod privileges;
mod process;
mod property;
mod receivers;
mod reference;
mod regress;
mod replay;
mod retention;
mod retry;
mod roles;
mod rotation;
mod schema;
mod secrets;
mod standby;
mod stats;
mod upgrade;
mod values;
mod versions;
