//! What most tests need: a table that is attached, an endpoint that gets its events, and a receiver.

use postgres::Client;

use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::receiver::Receiver;
use crate::wait::{holds, secs, wait_until};
use crate::wire::{Reply, Request};

/// A table `name (id bigint primary key, note text)`, an endpoint `name` for its events, and a receiver. Removed
/// when dropped; then the server log is checked, too.
pub struct Scene<'c> {
    /// Where it plays.
    pub cluster: &'c Cluster,
    /// Of the table, the resource and the endpoint.
    pub name: String,
    /// A session of the superuser.
    pub client: Client,
    /// Gets the events.
    pub receiver: Receiver,
    /// Id of the endpoint.
    pub endpoint: i64,
}

impl<'c> Scene<'c> {
    /// Sets the scene up. `options` are further arguments of `webhook_register`, as `, timeout => '1 s'`.
    pub fn new(
        cluster: &'c Cluster,
        name: &str,
        options: &str,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::with_receiver(cluster, name, options, Receiver::start(script))
    }

    /// The same with a receiver that is there already.
    pub fn with_receiver(cluster: &'c Cluster, name: &str, options: &str, receiver: Receiver) -> Self {
        let mut client = cluster.connect();
        create_table(&mut client, name);
        let (endpoint, secret) = register(&mut client, name, &receiver.url(), &format!("{name}.*"), options);
        receiver.trust(&secret);
        Self { cluster, name: name.to_owned(), client, receiver, endpoint }
    }

    /// A scene on the shared cluster whose receiver accepts everything, one request after the other: so what was inserted
    /// first arrives first, and a [fence](Self::fence) comes last.
    pub fn accepting(name: &str) -> Scene<'static> {
        Scene::new(Cluster::shared(), name, ", max_in_flight => 1", |_, _| Reply::ok())
    }

    /// Inserts rows, each in a transaction of its own.
    #[track_caller]
    pub fn insert(&mut self, ids: impl IntoIterator<Item = i64>) {
        let statement = self.client.prepare(&self.sql("INSERT INTO public.{} VALUES ($1, 'note')")).unwrap();
        for id in ids {
            self.client.execute(&statement, &[&id]).expect("insert");
        }
    }

    /// Runs statements; `{}` stands for the table.
    #[track_caller]
    pub fn run(&mut self, template: &str) {
        let sql = self.sql(template);
        self.client.batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The template with the table's name in place of `{}`.
    pub fn sql(&self, template: &str) -> String {
        template.replace("{}", &self.name)
    }

    /// One number. `{}` in the query stands for the table.
    #[track_caller]
    pub fn number(&mut self, query: &str) -> i64 {
        let query = self.sql(query);
        self.client.query_one(&query, &[]).unwrap_or_else(|e| panic!("{query}: {e:?}")).get(0)
    }

    /// Connects again after the server went away.
    pub fn reconnect(&mut self) {
        // A server that is just going down resets connections.
        wait_until("the server takes connections", secs(20), || {
            self.client = self.cluster.try_connect().map_err(|e| e.to_string())?;
            Ok(())
        });
    }

    /// What was committed against what arrived, at this moment.
    pub fn ledger(&mut self) -> Ledger {
        Ledger::read(&mut self.client, &self.name, &self.receiver)
    }

    /// Inserts one more row and waits until it is delivered: then the worker has passed everything before it.
    #[track_caller]
    pub fn fence(&mut self, id: i64) {
        self.insert([id]);
        self.receiver.wait_for_rows([id], secs(20));
    }

    /// Waits until every committed row was answered 2xx and no delivery is pending.
    #[track_caller]
    pub fn wait_until_drained(&mut self, deadline: std::time::Duration) {
        let committed = self.ledger().committed;
        self.receiver.wait_for_rows(committed, deadline);
        self.wait_for_deliveries("pending", 0);
    }

    /// Waits until the endpoint has exactly so many deliveries in this state.
    #[track_caller]
    pub fn wait_for_deliveries(&mut self, state: &str, n: i64) {
        let query = "SELECT count(*) FROM webhook.deliveries WHERE endpoint_id = $1 AND state = $2";
        wait_until(&format!("{n} deliveries are {state}"), secs(20), || {
            let row = self.client.query_one(query, &[&self.endpoint, &state]).map_err(|e| e.to_string())?;
            let seen: i64 = row.get(0);
            holds(seen == n, || format!("{seen} deliveries"))
        });
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.receiver.release();
        if std::thread::panicking() {
            eprintln!(
                "{} requests came, rows: {:?}",
                self.receiver.count(),
                self.receiver.rows().iter().take(20).collect::<Vec<_>>()
            );
        }
        // A test that stopped the server or dropped the extension has nothing to clean up.
        if let Ok(mut client) = self.cluster.try_connect() {
            let _ = client.execute("SELECT webhook_unregister($1)", &[&self.endpoint]);
            let _ = client.batch_execute(&self.sql("DROP TABLE IF EXISTS public.{}"));
        }
        if !std::thread::panicking() {
            self.cluster.assert_calm();
        }
    }
}

/// Creates and attaches a table `name (id bigint primary key, note text)`.
#[track_caller]
pub fn create_table(client: &mut Client, name: &str) {
    let sql = format!(
        "CREATE TABLE public.{name} (id bigint PRIMARY KEY, note text);
         SELECT webhook_attach('public.{name}')"
    );
    client.batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// Registers an endpoint; answers its id and secret. `options` are further arguments.
#[track_caller]
pub fn register(client: &mut Client, name: &str, url: &str, events: &str, options: &str) -> (i64, String) {
    let sql = format!(
        "SELECT id, secret FROM webhook_register(url => $1, events => ARRAY[$2], name => $3{options})"
    );
    let row = client.query_one(&sql, &[&url, &events, &name]).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    (row.get(0), row.get(1))
}
