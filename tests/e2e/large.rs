//! Transactions of many events: who wants nothing of them passes them, who wants something gets it.

use std::collections::BTreeSet;

use postgres::Client;

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, create_table, register};
use crate::size::size;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// What the large transactions that wrote one of these types say they wrote of.
fn said(client: &mut Client, event_type: &str) -> Vec<Vec<String>> {
    let query = "SELECT (SELECT array_agg(t ORDER BY t) FROM unnest(l.types) t)
                   FROM webhook.large_transaction l WHERE $1 = ANY (l.types) ORDER BY l.xid";
    client.query(query, &[&event_type]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_large_transaction_names_all_types_that_it_wrote() {
    let mut scene = Scene::accepting("large_names");
    create_table(&mut scene.client, "large_names_too");
    let (other, _) =
        register(&mut scene.client, "large_names_too", &scene.receiver.url(), "large_names_too.*", "");
    scene.run("SELECT webhook_pause((SELECT id FROM webhook.endpoints WHERE name = '{}'))");
    scene.run(
        "BEGIN;
         INSERT INTO public.large_names_too VALUES (1, 'before');
         SAVEPOINT a; DELETE FROM public.large_names_too; RELEASE a;
         INSERT INTO public.{} SELECT n, 'x' FROM generate_series(1, 6000) n;
         UPDATE public.{} SET note = 'y' WHERE id = 1;
         COMMIT",
    );
    let all =
        ["large_names.created", "large_names.updated", "large_names_too.created", "large_names_too.deleted"];
    assert_eq!(said(&mut scene.client, "large_names.created"), [all.map(str::to_owned).to_vec()]);
    scene.client.execute("SELECT webhook_unregister($1)", &[&other]).unwrap();
    scene.run("DROP TABLE public.large_names_too");
}

#[test]
fn a_small_transaction_and_one_with_events_by_hand_say_nothing() {
    let mut scene = Scene::accepting("large_nothing");
    scene.run("SELECT webhook_pause((SELECT id FROM webhook.endpoints WHERE name = '{}'))");
    scene.run("INSERT INTO public.{} SELECT n, 'x' FROM generate_series(1, 4000) n");
    scene.run(
        "BEGIN;
         SELECT webhook_send('large_nothing.sent', '1');
         INSERT INTO public.{} SELECT n, 'x' FROM generate_series(5000, 10000) n;
         COMMIT",
    );
    assert!(said(&mut scene.client, "large_nothing.created").is_empty());
    // The next one begins anew.
    scene.run("INSERT INTO public.{} SELECT n, 'x' FROM generate_series(20000, 25000) n");
    assert_eq!(said(&mut scene.client, "large_nothing.created"), [["large_nothing.created".to_owned()]]);
}

#[test]
fn a_prepared_transaction_says_what_it_wrote_of_when_it_commits() {
    let mut scene = Scene::accepting("large_prepared");
    scene.run("SELECT webhook_pause((SELECT id FROM webhook.endpoints WHERE name = '{}'))");
    scene.run("BEGIN; INSERT INTO public.{} SELECT n, 'x' FROM generate_series(1, 5000) n; PREPARE TRANSACTION '{}'");
    assert!(said(&mut scene.client, "large_prepared.created").is_empty());
    scene.run("COMMIT PREPARED '{}'");
    assert_eq!(said(&mut scene.client, "large_prepared.created").len(), 1);
}

#[test]
fn a_writer_without_any_right_can_commit_a_large_transaction() {
    let mut scene = Scene::accepting("large_writer");
    scene.run(
        "CREATE ROLE large_writer_role; GRANT INSERT ON public.{} TO large_writer_role;
         SELECT webhook_pause((SELECT id FROM webhook.endpoints WHERE name = '{}'));
         SET ROLE large_writer_role;
         INSERT INTO public.{} SELECT n, 'x' FROM generate_series(1, 5000) n;
         RESET ROLE;
         REVOKE ALL ON public.{} FROM large_writer_role; DROP ROLE large_writer_role",
    );
    assert_eq!(said(&mut scene.client, "large_writer.created").len(), 1);
}

#[test]
fn every_endpoint_gets_exactly_its_part_of_a_large_transaction() {
    let cluster = Cluster::shared();
    let mut scene = Scene::new(cluster, "large_parts", "", |_, _| Reply::ok());
    let others = ["large_parts_b", "large_parts_c"].map(|name| {
        create_table(&mut scene.client, name);
        let receiver = Receiver::start(|_, _| Reply::ok());
        let (id, secret) = register(&mut scene.client, name, &receiver.url(), &format!("{name}.*"), "");
        receiver.trust(&secret);
        (name, receiver, id)
    });
    // One with a few rows among the many of another, one of which they want nothing, one after that, and a backfill.
    scene.run(
        "BEGIN;
         INSERT INTO public.large_parts_b VALUES (1, 'before');
         INSERT INTO public.{} SELECT n, 'x' FROM generate_series(1, 3000) n;
         INSERT INTO public.large_parts_b VALUES (2, 'between');
         INSERT INTO public.{} SELECT n, 'x' FROM generate_series(3001, 6000) n;
         INSERT INTO public.large_parts_b VALUES (3, 'after');
         COMMIT;
         INSERT INTO public.{} SELECT n, 'x' FROM generate_series(6001, 12000) n;
         INSERT INTO public.large_parts_b VALUES (4, 'small');
         INSERT INTO public.large_parts_c VALUES (1, 'small')",
    );
    scene.client.execute("SELECT webhook_backfill('public.large_parts', $1)", &[&others[1].2]).unwrap();
    scene.insert([12_001]);
    scene.receiver.wait_for_rows(1..=12_001, secs(120));
    others[0].1.wait_for_rows(1..=4, secs(20));
    others[1].1.wait_for_rows(1..=12_000, secs(120));
    wait_until("nothing is left to read", secs(20), || {
        let all = "SELECT count(*) FROM webhook.deliveries WHERE state = 'delivered' AND endpoint_id = $1";
        let count = |client: &mut Client, id: i64| client.query_one(all, &[&id]).unwrap().get::<_, i64>(0);
        let counts = [scene.endpoint, others[0].2, others[1].2].map(|id| count(&mut scene.client, id));
        holds(counts == [12_001, 4, 12_001], || format!("{counts:?} delivered"))
    });
    assert_eq!(others[0].1.accepted(), BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(others[0].1.duplicates() + others[1].1.duplicates() + scene.receiver.duplicates(), 0);
    for (name, _, id) in &others {
        scene.client.execute("SELECT webhook_unregister($1)", &[id]).unwrap();
        scene.client.batch_execute(&format!("DROP TABLE public.{name}")).unwrap();
    }
}

#[test]
fn a_backlog_of_many_transactions_arrives_whole_and_once() {
    let mut scene = Scene::new(Cluster::shared(), "large_backlog", "", |_, _| Reply::ok());
    scene.run("SELECT webhook_pause((SELECT id FROM webhook.endpoints WHERE name = '{}'))");
    scene.run(
        "DO $$ BEGIN
             FOR n IN 1..18000 LOOP INSERT INTO public.{} VALUES (n, 'x'); COMMIT; END LOOP;
         END $$",
    );
    scene.run("SELECT webhook_resume((SELECT id FROM webhook.endpoints WHERE name = '{}'))");
    scene.receiver.wait_for_rows(1..=18_000, secs(120));
    assert_eq!(scene.receiver.duplicates(), 0);
}

/// Kilobytes of a process: what it has for itself, and the most that it ever had, with what it shares.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a backend that runs");
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse().expect(name)
    };
    (figure("RssAnon:"), figure("VmHWM:"))
}

#[test]
fn a_transaction_of_millions_of_rows_does_not_grow_with_them() {
    /// Of one statement: PostgreSQL itself keeps a note of each row until the statement ends.
    const BLOCK: u32 = 20_000;
    let mut scene = Scene::accepting("large_memory");
    let pid = scene.number("SELECT pg_backend_pid()::bigint").try_into().unwrap();
    let rows = size(100_000, 5_000_000);
    let add = |scene: &mut Scene<'_>, from: u32| {
        let to = from + BLOCK - 1;
        scene.run(&format!(
            "INSERT INTO {{}} SELECT g, repeat('x', 100) FROM generate_series({from}, {to}) g"
        ));
    };
    scene.run("BEGIN");
    add(&mut scene, 0);
    let before = memory(pid);
    for from in (BLOCK..rows).step_by(BLOCK as usize) {
        add(&mut scene, from);
    }
    let after = memory(pid);
    assert_eq!(
        scene.number("SELECT count(*) FROM webhook.outbox WHERE type = '{}.created'"),
        i64::from(rows)
    );
    scene.run("ROLLBACK");
    // The events of 80,000 rows are 14 MB.
    let grown = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    assert!(grown.0 < 6000 && grown.1 < 10_000, "{grown:?} kB, from {before:?} to {after:?}");
}
