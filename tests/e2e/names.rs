//! Endpoints whose names a real name server knows, or does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::Cluster;
use crate::name_server::{PRIVATE, PUBLIC, Say, with_name_server};
use crate::receiver::Receiver;
use crate::scene::{create_table, register};
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

#[test]
fn what_is_wrong_with_a_name_is_recorded_by_its_class_in_time_and_nothing_connects() {
    let zone = |name: &str, _| match name {
        "private.example" => Say::Addresses(vec![PRIVATE]),
        "mixed.example" => Say::Addresses(vec![PUBLIC, PRIVATE]),
        "broken.example" => Say::Broken,
        "silent.example" => Say::Silence,
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let cluster = Cluster::start(&[("webhook_pg.egress_allow", "")]);
        let mut client = cluster.connect();
        create_table(&mut client, "names");
        let expected = [
            ("broken", "dns"),
            ("mixed", "egress"),
            ("nothing", "dns"),
            ("private", "egress"),
            ("silent", "dns"),
        ];
        for (name, _) in expected {
            let url = format!("http://{name}.example:{port}/");
            register(&mut client, name, &url, "names.*", ", max_attempts => 1, timeout => '2 s'");
        }
        client.batch_execute("INSERT INTO public.names VALUES (1)").unwrap();
        let query = "SELECT e.name, split_part(a.error, ':', 1), a.duration_ms < 3000
                       FROM webhook.attempts a JOIN webhook.endpoints e ON e.id = a.endpoint_id
                       JOIN webhook.deliveries d ON d.id = a.delivery_id AND d.state = 'dead'";
        let expected: BTreeMap<String, (String, bool)> =
            expected.map(|(name, class)| (name.to_owned(), (class.to_owned(), true))).into();
        wait_until("every attempt is recorded", secs(20), || {
            let rows = client.query(query, &[]).map_err(|e| e.to_string())?;
            let got: BTreeMap<_, _> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
            holds(got == expected && rows.len() == 5, || format!("{got:?}"))
        });
        assert!(listener.accept().is_err(), "somebody connected");
    });
}

#[test]
fn while_the_resolver_is_down_nobody_is_charged_and_the_status_says_so_and_then_all_is_delivered() {
    let is_up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_up);
    let zone = move |name: &str, _| match name {
        _ if !answers.load(Ordering::SeqCst) => Say::Broken,
        "receiver.example" => Say::Addresses(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        let receiver = Receiver::start(|_, _| Reply::ok());
        let cluster = Cluster::start(&[]);
        let mut client = cluster.connect();
        create_table(&mut client, "resolver");
        let url = receiver.url().replace("127.0.0.1", "receiver.example");
        let (_, secret) = register(&mut client, "resolver", &url, "resolver.*", ", max_attempts => 1");
        receiver.trust(&secret);
        client.batch_execute("INSERT INTO public.resolver VALUES (1), (2)").unwrap();
        let mut sending = |wanted: bool, text: &str| {
            let query = "SELECT ok, detail FROM webhook_status() WHERE check_name = 'sending'";
            wait_until("the status says it", secs(20), || {
                let row = client.query_one(query, &[]).map_err(|e| e.to_string())?;
                let (ok, detail): (bool, String) = (row.get(0), row.get(1));
                holds(ok == wanted && detail.contains(text), || detail)
            });
        };
        sending(false, "our resolver does not answer");
        is_up.store(true, Ordering::SeqCst);
        receiver.wait_for_rows([1, 2], secs(20));
        sending(true, "");
        let query = "SELECT count(*) FROM webhook.deliveries WHERE state = 'delivered' AND attempts = 1";
        wait_until("both are recorded as delivered at once", secs(10), || {
            let n: i64 = client.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
            holds(n == 2, || format!("{n}"))
        });
    });
}
