//! What events carry beside the row.

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

#[test]
fn all_that_an_event_carries_is_of_one_moment() {
    let cluster = Cluster::shared();
    let mut scene = Scene::new(cluster, "expand_moment", "", |_, _| Reply::ok());
    let mut other = cluster.connect();
    other
        .batch_execute(
            "CREATE TABLE public.expand_account (id int PRIMARY KEY, name text);
             INSERT INTO public.expand_account VALUES (7, 'before');
             ALTER TABLE public.expand_moment ADD account_id int REFERENCES public.expand_account;
             CREATE FUNCTION public.expand_waits(public.expand_moment) RETURNS json LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN '1'; END $$;
             SELECT webhook_attach('public.expand_moment',
                                   expand => '{\"a\": \"account_id\", \"b\": \"expand_waits\", \"c\": \"account_id\"}');
             SELECT pg_advisory_lock(4711)",
        )
        .expect("set it up");
    let writer = std::thread::spawn(|| {
        let insert = "INSERT INTO public.expand_moment VALUES (1, 'note', 7)";
        Cluster::shared().connect().batch_execute(insert).expect("insert");
    });
    wait_until("the writer is between two expansions", secs(10), || {
        let query =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted";
        let waiting: i64 = other.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
        holds(waiting == 1, || format!("{waiting} wait"))
    });
    other
        .batch_execute("UPDATE public.expand_account SET name = 'after'; SELECT pg_advisory_unlock(4711)")
        .expect("change what it carries");
    writer.join().expect("the writer");
    let query = "SELECT expanded FROM webhook.outbox WHERE type = 'expand_moment.created'";
    let expanded: String = scene.client.query_one(query, &[]).expect("the event").get(0);
    assert_eq!(expanded, r#"{"a":{"id":7,"name":"before"},"b":1,"c":{"id":7,"name":"before"}}"#);
    scene.receiver.wait_for_rows([1], secs(20));
    scene.run("DROP TABLE public.{} CASCADE; DROP TABLE public.expand_account");
}
