//! pg_dump and pg_restore: the configuration comes along; events, positions and secrets do not; nothing is sent before
//! webhook_adopt().

use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::Client;

use crate::cluster::{Cluster, Stop};
use crate::os::run;
use crate::receiver::Receiver;
use crate::scene::{Scene, create_table};
use crate::site::{self, status};
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::{Reply, Request};
use crate::writers::Writers;

/// Everything is seen within a second, in every database.
const QUICK: [(&str, &str); 2] = [("webhook_pg.databases", ""), ("webhook_pg.poll_interval", "1s")];

/// A client program of this server, connected to it as this user.
fn client(cluster: &Cluster, name: &str, user: &str) -> Command {
    let mut command = cluster.program(name);
    command.arg("-h").arg(cluster.home()).args(["-U", user]);
    command
}

fn dump(cluster: &Cluster, database: &str, user: &str, options: &[&str]) -> PathBuf {
    let file = cluster.home().join(format!("{database}.dump"));
    run(client(cluster, "pg_dump", user).args(["-Fc", "-d", database, "-f"]).arg(&file).args(options));
    file
}

/// Restores; fails the test at the first error.
fn restore(cluster: &Cluster, database: &str, file: &Path, options: &[&str]) {
    run(client(cluster, "pg_restore", "postgres").args(["-e", "-d", database]).args(options).arg(file));
}

/// What the configuration says: every endpoint and every attachment.
fn config(client: &mut Client) -> Vec<String> {
    let query = "SELECT webhook_config(id)::text FROM webhook.endpoints
                 UNION ALL SELECT to_jsonb(a)::text FROM webhook.attachments a ORDER BY 1";
    client.query(query, &[]).expect("the configuration").iter().map(|row| row.get(0)).collect()
}

fn count(client: &mut Client, what: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {what}"), &[])
        .unwrap_or_else(|e| panic!("{what}: {e}"))
        .get(0)
}

/// Tables of every kind that capture knows, and endpoints with every kind of secret. Endpoint `plain` needs none.
fn furnish(scene: &mut Scene<'_>, url: &str) {
    scene.run(&format!(
        "CREATE TABLE public.member (contact bigint, list bigint, PRIMARY KEY (contact, list));
         SELECT webhook_attach('public.member', resource => 'contact', key => '{{contact}}', as_action => 'lists_changed');
         CREATE SCHEMA zoo; CREATE TABLE zoo.animal (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id);
         CREATE TABLE zoo.small PARTITION OF zoo.animal FOR VALUES FROM (0) TO (1000);
         SELECT webhook_attach('zoo.animal', actions => '{{created,deleted,truncated}}', condition => 'true',
                               columns => '{{id}}', resource => 'beast');
         SELECT webhook_attach('public.{{}}', resource => 'always', always => true);
         INSERT INTO zoo.animal SELECT g, 'there' FROM generate_series(1, 50) g;
         SELECT webhook_register('{url}', '{{*}}', 'plain', signature => 'none');
         SELECT webhook_register('{url}', '{{*}}', 'keyed', signature => 'none', headers => '{{\"X-Api-Key\": \"hush\"}}');
         SELECT webhook_register('{url}', '{{*}}', 'password', signature => 'none', basic_auth_username => 'u',
                                 basic_auth_password => 'hush');
         SELECT webhook_register('{url}', '{{*}}', 'no password', signature => 'none', basic_auth_username => 'u',
                                 filter => '$.type == \"nothing\"', scope => '{{\"id\": 1}}', rate_limit => 5);
         SELECT webhook_register('{url}', '{{*}}', 'off', is_active => false);
         SELECT webhook_pause(id) FROM webhook_register('{url}', '{{*}}', 'paused', retry_schedule => '{{1s,1h}}')"
    ));
}

/// What a receiver would know the sender by.
fn api_key(request: &Request) -> Option<&str> {
    let header = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-api-key"));
    header.map(|(_, value)| value.as_str())
}

/// Nothing is sent from here, and the status says why.
fn assert_guarded(database: &mut Client) {
    let (ok, detail) = status(database, "clone guard");
    assert!(!ok && detail.contains("webhook_adopt"), "{detail}");
}

#[test]
fn a_dump_under_load_restores_the_configuration_and_sends_nothing_before_it_is_adopted() {
    let source = Cluster::start(&QUICK);
    let mut scene = Scene::new(&source, "dumped", "", |_, _| Reply::ok());
    let receiver = Receiver::start(|_, _| Reply::ok());
    furnish(&mut scene, &receiver.url());
    let writers = Writers::start(&scene, 2, "", millis(2));
    scene.receiver.wait_for_answers(200, secs(30));
    let file = dump(&source, "postgres", "postgres", &[]);
    let acknowledged = writers.stop();
    scene.receiver.wait_for_rows(acknowledged, secs(30));
    scene.fence(1_000_000);
    let expected = config(&mut scene.client);
    // So that whatever comes from now on comes from the copy.
    source.stop_server(Stop::Fast);

    let target = Cluster::another(&QUICK);
    // A load of many jobs, too: then the order of tables is anything.
    for (database, options) in [("whole", &[][..]), ("by_jobs", &["-j", "4"])] {
        site::run(&mut target.connect(), &format!("CREATE DATABASE {database}"));
        let requests = (scene.receiver.count(), receiver.count());
        restore(&target, database, &file, options);
        let mut copy = target.connect_to(database);
        for table in ["outbox", "delivery", "attempt", "endpoint_secret", "idempotency", "failing"] {
            assert_eq!(count(&mut copy, &format!("webhook.{table}")), 0, "webhook.{table} was dumped");
        }
        assert_eq!(count(&mut copy, "webhook.position"), 1, "only the head has a position");
        assert_eq!(config(&mut copy), expected, "the configuration differs");
        assert!(count(&mut copy, "public.dumped") >= 100);
        assert_eq!(count(&mut copy, "webhook.attachments WHERE NOT enabled"), 0);
        wait_until("the launcher has looked into it", secs(20), || {
            let said = target.log().contains(&format!("database \"{database}\" is a copy"));
            holds(said, || "nothing said".to_owned())
        });
        assert_guarded(&mut copy);
        assert_eq!((scene.receiver.count(), receiver.count()), requests, "something was sent");
        site::run(&mut copy, "INSERT INTO zoo.animal VALUES (900, 'written before it was adopted')");
    }

    // From now on it is a database of its own.
    let mut copy = target.connect_to("whole");
    site::run(&mut copy, "SELECT webhook_adopt()");
    let dumped = scene.receiver.count();
    let keyed = || receiver.requests().iter().filter(|r| api_key(r).is_some()).count();
    let keyed_before = keyed();
    let (ok, detail) = status(&mut copy, "secrets");
    assert!(!ok, "secrets are missing");
    for name in ["dumped", "keyed", "password"] {
        assert!(detail.contains(name), "{name} is not in: {detail}");
    }
    for name in ["plain", "no password"] {
        assert!(!detail.contains(name), "{name} has all it needs: {detail}");
    }
    // What the copy has captured itself is sent, to whom has secrets.
    wait_until("the complete endpoint gets its event", secs(20), || {
        let ids: Vec<i64> = receiver.requests().iter().filter_map(|r| r.row()).collect();
        holds(ids.contains(&900), || format!("{ids:?}"))
    });
    site::run(
        &mut copy,
        "INSERT INTO public.dumped VALUES (2000000, 'in the copy'); INSERT INTO public.member VALUES (1, 1);
         UPDATE zoo.animal SET note = 'not attached' WHERE id = 1; DELETE FROM zoo.animal WHERE id = 2",
    );
    wait_until("the attached tables work", secs(20), || {
        let types: Vec<String> =
            receiver.requests().iter().filter_map(|r| Some(r.json()["type"].as_str()?.to_owned())).collect();
        let wanted = ["dumped.created", "always.created", "contact.lists_changed", "beast.deleted"];
        holds(wanted.iter().all(|w| types.iter().any(|t| t == w)), || {
            format!("{:?}", types.last_chunk::<9>())
        })
    });
    assert_eq!(scene.receiver.count(), dumped, "an endpoint without its secret was sent to");
    assert_eq!(keyed(), keyed_before, "an endpoint without its header was sent to");

    // They missed nothing meanwhile.
    let before = count(&mut copy, "webhook.endpoints WHERE name = 'dumped'");
    assert_eq!(before, 1);
    let secret: String = copy
        .query_one("SELECT webhook_rotate_secret(id) FROM webhook.endpoints WHERE name = 'dumped'", &[])
        .unwrap()
        .get(0);
    scene.receiver.trust(&secret);
    scene.receiver.wait_for_rows([2_000_000], secs(20));
    assert_eq!(scene.receiver.count(), dumped + 1, "more than its own event was sent");
    site::run(
        &mut copy,
        "SELECT webhook_update(id, '{\"rate_limit\": 100}') FROM webhook.endpoints WHERE name = 'keyed'",
    );
    assert!(status(&mut copy, "secrets").1.contains("keyed"), "a change of something else is no secret");
    site::run(
        &mut copy,
        "SELECT webhook_update(id, '{\"headers\": {\"X-Api-Key\": \"new\"}}') FROM webhook.endpoints WHERE name = 'keyed';
         SELECT webhook_update(id, '{\"basic_auth_password\": \"new\"}') FROM webhook.endpoints WHERE name = 'password';
         SELECT webhook_rotate_secret(id) FROM webhook.endpoints WHERE name IN ('paused', 'off')",
    );
    assert!(status(&mut copy, "secrets").0, "{}", status(&mut copy, "secrets").1);
    wait_until("the endpoint with a header catches up", secs(20), || {
        let keyed = receiver.requests().iter().filter(|r| api_key(r) == Some("new")).count();
        holds(keyed >= 5, || format!("{keyed} requests"))
    });

    // Nothing collides with what came in the dump, and who is new starts at the present.
    let late = Receiver::start(|_, _| Reply::ok());
    let (endpoint, secret) =
        crate::scene::register(&mut copy, "late", &late.url(), "*", ", max_in_flight => 1");
    late.trust(&secret);
    assert!(endpoint > 7, "id {endpoint} was given before");
    create_table(&mut copy, "late");
    site::run(&mut copy, "INSERT INTO public.late VALUES (1, 'first')");
    late.wait_for_rows([1], secs(20));
    assert_eq!(late.count(), 1);
    target.assert_calm();
}

#[test]
fn a_load_of_data_alone_raises_no_event() {
    let source = Cluster::start(&QUICK);
    let mut scene = Scene::new(&source, "loaded", "", |_, _| Reply::ok());
    let receiver = Receiver::start(|_, _| Reply::ok());
    furnish(&mut scene, &receiver.url());
    scene.insert(1..=100);
    scene.wait_until_drained(secs(20));
    let file = dump(&source, "postgres", "postgres", &[]);
    let target = Cluster::another(&QUICK);
    for (database, own, options) in
        [("disabled", 1000, &["--data-only", "--disable-triggers"][..]), ("firing", 1001, &["--data-only"])]
    {
        site::run(&mut target.connect(), &format!("CREATE DATABASE {database}"));
        restore(&target, database, &file, &["--schema-only"]);
        let requests = (scene.receiver.count(), receiver.count());
        restore(&target, database, &file, options);
        let mut copy = target.connect_to(database);
        assert_eq!(count(&mut copy, "public.loaded"), 100);
        assert_eq!(count(&mut copy, "webhook.events"), 0, "{options:?} raised events");
        assert_guarded(&mut copy);
        site::run(&mut copy, "SELECT webhook_adopt()");
        assert_eq!(config(&mut copy), config(&mut scene.client), "with {options:?}");
        site::run(&mut copy, &format!("INSERT INTO public.loaded VALUES ({own}, 'in the copy')"));
        receiver.wait_for_rows([own], secs(20));
        assert_eq!(scene.receiver.count(), requests.0, "an endpoint without its secret was sent to");
        site::run(&mut target.connect(), &format!("DROP DATABASE {database} WITH (FORCE)"));
    }
}

#[test]
fn a_dump_can_be_restored_over_its_own_database() {
    let cluster = Cluster::start(&QUICK);
    let mut site = site::Site::new(&cluster, "twice");
    site.deliver(1, secs(10));
    let before = config(&mut site.client);
    let file = dump(&cluster, "twice", "postgres", &[]);
    restore(&cluster, "twice", &file, &["--clean"]);
    site.client = cluster.connect_to("twice");
    assert_eq!(config(&mut site.client), before);
    assert_eq!(count(&mut site.client, "webhook.events"), 0);
    // It is where it was; but a dump has no secrets.
    assert!(site.status("clone guard").0);
    assert!(!site.status("secrets").0);
    assert_eq!(site.receiver.rows(), [1]);
    let query = "SELECT webhook_rotate_secret(id) FROM webhook.endpoints";
    let secret: String = site.client.query_one(query, &[]).unwrap().get(0);
    site.receiver.trust(&secret);
    site.deliver(2, secs(10));
    assert_eq!(site.receiver.rows(), [1, 2]);
}

#[test]
fn the_owner_of_a_database_dumps_what_belongs_to_him() {
    let cluster = Cluster::start(&QUICK);
    let mut site = site::Site::new(&cluster, "owned");
    site.run(
        "CREATE ROLE boss LOGIN; ALTER DATABASE owned OWNER TO boss; CREATE TABLE public.his (id int PRIMARY KEY);
         ALTER TABLE public.his OWNER TO boss; SELECT webhook_attach('public.his')",
    );
    // The private tables belong to whoever created the extension; its name does for a dump of his own tables.
    let file = dump(&cluster, "owned", "boss", &["-t", "public.his"]);
    site::run(&mut cluster.connect(), "CREATE DATABASE his_copy");
    site::run(&mut cluster.connect_to("his_copy"), "CREATE EXTENSION webhook_pg");
    restore(&cluster, "his_copy", &file, &[]);
    let whole = client(&cluster, "pg_dump", "boss").args(["-Fc", "-d", "owned"]).output().expect("pg_dump");
    let said = String::from_utf8_lossy(&whole.stderr).into_owned();
    assert!(!whole.status.success() && said.contains("permission denied for"), "{said}");
    // With the right to read all data he takes the configuration along; secrets are never in a dump.
    site.run("GRANT pg_read_all_data TO boss");
    let file = dump(&cluster, "owned", "boss", &[]);
    site::run(&mut cluster.connect(), "CREATE DATABASE all_copy");
    restore(&cluster, "all_copy", &file, &[]);
    let mut copy = cluster.connect_to("all_copy");
    assert_eq!(config(&mut copy), config(&mut site.client));
    assert_eq!(count(&mut copy, "webhook.endpoint_secret"), 0);
    assert_guarded(&mut copy);
}

#[test]
fn a_dump_of_the_whole_cluster_restores_without_an_error() {
    let source = Cluster::start(&QUICK);
    let mut scene = Scene::new(&source, "all", "", |_, _| Reply::ok());
    scene.run("CREATE ROLE app; GRANT ALL ON SCHEMA public TO app");
    scene.run("UPDATE webhook.endpoint SET owner = 'app'");
    scene.insert(1..=10);
    scene.wait_until_drained(secs(10));
    let text = String::from_utf8(run(&mut client(&source, "pg_dumpall", "postgres")).stdout).unwrap();
    // The role postgres is there already.
    let text = text.replace("CREATE ROLE postgres;", "");
    let target = Cluster::another(&QUICK);
    let file = target.write_file("all.sql", &text);
    let mut psql = Command::new(crate::regress::psql());
    crate::os::forget_libpq_settings(&mut psql);
    psql.arg("-h").arg(target.home()).args(["-X", "-q", "-U", "postgres", "-d", "template1"]);
    run(psql.args(["-v", "ON_ERROR_STOP=1", "-f"]).arg(file));
    let mut copy = target.connect();
    assert_eq!(config(&mut copy), config(&mut scene.client));
    assert_eq!(count(&mut copy, "webhook.events"), 0);
    assert_guarded(&mut copy);
    assert_eq!(scene.receiver.count(), 10);
}
