//! A database of its own with the extension, a table, an endpoint and a receiver.

use std::time::Duration;

use postgres::Client;

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{create_table, register};
use crate::wait::{holds, wait_until};
use crate::wire::Reply;

/// The table of every site.
const TABLE: &str = "thing";

/// A served database beside `postgres`.
pub struct Site<'c> {
    cluster: &'c Cluster,
    /// Its name.
    pub database: String,
    /// A session of the superuser in it.
    pub client: Client,
    /// Gets the events.
    pub receiver: Receiver,
}

impl<'c> Site<'c> {
    /// Creates the database. Its receiver accepts everything.
    pub fn new(cluster: &'c Cluster, database: &str) -> Self {
        Self::with_receiver(cluster, database, "", Receiver::start(|_, _| Reply::ok()))
    }

    /// The same with further arguments of `webhook_register` and this receiver.
    pub fn with_receiver(cluster: &'c Cluster, database: &str, options: &str, receiver: Receiver) -> Self {
        run(&mut cluster.connect(), &format!("CREATE DATABASE {database}"));
        let mut client = cluster.connect_to(database);
        run(&mut client, "CREATE EXTENSION webhook_pg");
        let mut site = Self { cluster, database: database.to_owned(), client, receiver };
        site.furnish(options);
        site
    }

    /// Table and endpoint.
    pub fn furnish(&mut self, options: &str) {
        create_table(&mut self.client, TABLE);
        let (_, secret) = register(&mut self.client, TABLE, &self.receiver.url(), "*", options);
        self.receiver.trust(&secret);
    }

    /// Runs statements in the database.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        run(&mut self.client, sql);
    }

    /// Inserts rows in one transaction.
    #[track_caller]
    pub fn insert(&mut self, ids: std::ops::RangeInclusive<i64>) {
        let (first, last) = (ids.start(), ids.end());
        self.run(&format!("INSERT INTO {TABLE} SELECT g, 'note' FROM generate_series({first}, {last}) g"));
    }

    /// Inserts a row and waits until it is delivered.
    #[track_caller]
    pub fn deliver(&mut self, id: i64, deadline: Duration) {
        self.insert(id..=id);
        self.receiver.wait_for_rows([id], deadline);
    }

    /// Waits until every row that the receiver has counts as delivered.
    #[track_caller]
    pub fn wait_until_noted(&mut self, deadline: Duration) {
        let rows = i64::try_from(self.receiver.rows().len()).unwrap();
        let query = "SELECT count(*) FROM webhook.deliveries WHERE state = 'delivered'";
        wait_until("the outcomes are written", deadline, || {
            let noted: i64 = self.client.query_one(query, &[]).expect("the deliveries").get(0);
            holds(noted >= rows, || format!("{noted} of {rows}"))
        });
    }

    /// Ends the session in the database, which a command needs for itself; the database may have another name afterwards.
    pub fn alone(&mut self, name_after: &str, command: &str) -> Duration {
        self.client = self.cluster.connect();
        let started = std::time::Instant::now();
        run(&mut self.client, command);
        let took = started.elapsed();
        self.database = name_after.to_owned();
        self.client = self.cluster.connect_to(name_after);
        took
    }

    /// What `webhook_status()` says about one thing.
    #[track_caller]
    pub fn status(&mut self, check: &str) -> (bool, String) {
        status(&mut self.client, check)
    }
}

/// What `webhook_status()` says about one thing.
#[track_caller]
pub fn status(client: &mut Client, check: &str) -> (bool, String) {
    let query = "SELECT ok, detail FROM webhook_status() WHERE check_name = $1";
    let row = client.query_one(query, &[&check]).expect("the status");
    (row.get(0), row.get(1))
}

/// Runs statements.
#[track_caller]
pub fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}
