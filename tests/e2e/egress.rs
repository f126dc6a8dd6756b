//! Where requests may go, and whom the sender trusts.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, create_table, register};
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

/// A certificate authority of our own (PEM), and the configuration of a server for 127.0.0.1 that it vouches for.
fn authority() -> (String, ServerConfig) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);

    let mut server = CertificateParams::default();
    server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let server_key = KeyPair::generate().unwrap();
    let certificate = server.signed_by(&server_key, &issuer).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(server_key.serialize_der().into()),
        )
        .unwrap();
    (ca_pem, config)
}

/// Waits until the only delivery is dead and answers its error.
#[track_caller]
fn dead_with(scene: &mut Scene<'_>) -> String {
    scene.wait_for_deliveries("dead", 1);
    let query = "SELECT last_error FROM webhook.deliveries WHERE endpoint_id = $1";
    scene.client.query_one(query, &[&scene.endpoint]).unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[test]
fn a_receiver_whose_authority_stands_in_ca_file_gets_its_events() {
    let cluster = Cluster::shared();
    let (ca, config) = authority();
    let path = cluster.write_file("ca.pem", &ca);
    cluster.set("webhook_pg.ca_file", path.to_str().unwrap());
    let receiver = Receiver::start_tls(config, |_, _| Reply::ok());
    // The setting may reach the worker after the first attempt.
    let options = ", max_attempts => 20, attempt_interval => '1 s'";
    let mut scene = Scene::with_receiver(cluster, "egress_ca", options, receiver);
    scene.insert(1..=20);
    scene.wait_until_drained(secs(30));
    scene.receiver.assert_all_signed();
}

#[test]
fn a_receiver_with_an_unknown_authority_gets_nothing() {
    let (_, config) = authority();
    let receiver = Receiver::start_tls(config, |_, _| Reply::ok());
    let mut scene =
        Scene::with_receiver(Cluster::shared(), "egress_unknown", ", max_attempts => 1", receiver);
    scene.insert([1]);
    let error = dead_with(&mut scene);
    assert!(error.starts_with("tls"), "the error is {error:?}");
    assert_eq!(scene.receiver.count(), 0);
}

#[test]
fn a_name_that_resolves_to_a_closed_address_is_refused() {
    let canary = Receiver::start(|_, _| Reply::ok());
    let cluster = Cluster::start(&[("webhook_pg.egress_allow", "")]);
    let mut scene = Scene::with_receiver(&cluster, "egress_name", ", max_attempts => 1", canary);
    let port = scene.receiver.url().rsplit_once(':').unwrap().1.to_owned();
    let url = format!("http://localhost:{port}");
    scene.client.execute("SELECT webhook_unregister($1)", &[&scene.endpoint]).unwrap();
    let options = ", max_attempts => 1";
    scene.endpoint = register(&mut scene.client, "egress_name", &url, "egress_name.*", options).0;
    scene.insert([1]);
    let error = dead_with(&mut scene);
    assert!(error.starts_with("egress"), "the error is {error:?}");
    assert_eq!(scene.receiver.connections(), 0);
}

#[test]
fn tightening_the_policy_acts_within_a_second_over_pooled_connections_too() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "egress_tight", ", max_attempts => 1", |_, _| Reply::ok());
    scene.insert(1..=20);
    scene.receiver.wait_for_rows(1..=20, secs(20));
    cluster.set("webhook_pg.egress_allow", "");
    let reloaded = Instant::now();
    // There is something to send all the while, and beyond the second.
    let mut id = 20;
    while reloaded.elapsed() < millis(2500) {
        id += 1;
        scene.insert([id]);
        std::thread::sleep(millis(50));
    }
    let query = "SELECT count(*) FROM webhook.deliveries
                  WHERE endpoint = '{}' AND state = 'dead' AND last_error LIKE 'egress%'";
    wait_until("rows are refused", secs(10), || {
        let refused = scene.number(query);
        // Then the breaker opens.
        holds(refused >= 10, || format!("{refused} of {}", id - 20))
    });
    let last = scene.receiver.requests().iter().map(|request| request.received).max().unwrap();
    let after = last.saturating_duration_since(reloaded);
    assert!(after <= secs(1), "a row was sent {after:?} after the policy closed the address");
}

#[test]
fn with_a_list_of_networks_exactly_these_are_reached() {
    let cluster = Cluster::start(&[("webhook_pg.egress_allow", "127.0.0.1/32, 127.0.3.0/24")]);
    let mut scene = Scene::new(&cluster, "egress_list", "", |_, _| Reply::ok());
    let canaries = ["127.0.0.2:0", "127.0.2.255:0"].map(|address| TcpListener::bind(address).unwrap());
    let listed = TcpListener::bind("127.0.3.7:0").unwrap();
    for (n, listener) in canaries.iter().chain([&listed]).enumerate() {
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let options = ", max_attempts => 1, timeout => '1 s'";
        register(&mut scene.client, &format!("egress_list_{n}"), &url, "egress_list.*", options);
    }
    scene.fence(1);
    wait_until("the others have ended", secs(20), || {
        let query =
            "SELECT count(*) FROM webhook.deliveries WHERE state = 'dead' AND last_error LIKE 'egress%'";
        let refused = scene.number(query);
        let query =
            "SELECT count(*) FROM webhook.deliveries WHERE state = 'dead' AND last_error LIKE 'timeout%'";
        let silent = scene.number(query);
        holds((refused, silent) == (2, 1), || format!("{refused} refused, {silent} silent"))
    });
    assert!(canaries.iter().all(|canary| canary.accept().is_err()), "somebody connected");
    assert!(listed.accept().is_ok(), "nobody connected");
}

#[test]
fn an_http_url_is_refused_unless_allow_http_is_on() {
    let cluster = Cluster::start(&[("webhook_pg.allow_http", "off")]);
    let mut client = cluster.connect();
    let query = "SELECT webhook_register(url => 'http://127.0.0.1:9/hook', name => 'plain')";
    let error = client.batch_execute(query).expect_err("http is not allowed");
    let error = error.as_db_error().expect("an error of the server");
    assert!(["22023", "42501"].contains(&error.code().code()), "{error:?}");
    assert!(
        error.hint().unwrap_or_default().contains("allow_http"),
        "the hint does not say what to do: {error:?}"
    );
    let left: i64 = client.query_one("SELECT count(*) FROM webhook.endpoints", &[]).unwrap().get(0);
    assert_eq!(left, 0);
}

#[test]
fn a_proxy_in_the_environment_of_the_server_is_not_used() {
    let canary = Receiver::start(|_, _| Reply::ok());
    let url = canary.url();
    let proxy = url.strip_suffix("/hook").unwrap();
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let exceptions = ["no_proxy", "NO_PROXY"].map(|name| (name, "elsewhere.example"));
    let environment: Vec<(&str, &str)> =
        names.map(|name| (name, proxy)).into_iter().chain(exceptions).collect();
    let cluster = Cluster::start_with_environment(&environment);
    let (ca, config) = authority();
    let path = cluster.write_file("ca.pem", &ca);
    cluster.set("webhook_pg.ca_file", path.to_str().unwrap());
    let mut scene = Scene::new(&cluster, "egress_proxy", "", |_, _| Reply::ok());
    let over_tls = Receiver::start_tls(config, |_, _| Reply::ok());
    // The setting may reach the worker after the first attempt.
    let options = ", max_attempts => 20, attempt_interval => '1 s'";
    register(&mut scene.client, "egress_proxy_tls", &over_tls.url(), "egress_proxy.*", options);
    scene.fence(1);
    over_tls.wait_for_rows([1], secs(20));
    assert_eq!(canary.connections(), 0);
}

#[test]
fn with_a_proxy_set_every_request_goes_through_it() {
    let proxy = Receiver::start(|_, _| Reply::ok());
    let url = proxy.url();
    let cluster = Cluster::start(&[("webhook_pg.proxy", url.strip_suffix("/hook").unwrap())]);
    let mut client = cluster.connect();
    create_table(&mut client, "egress_proxied");
    // A name that only the proxy would know.
    let url = "http://receiver.invalid/hook";
    let (_, secret) = register(&mut client, "egress_proxied", url, "egress_proxied.*", "");
    proxy.trust(&secret);
    client.batch_execute("INSERT INTO egress_proxied (id) VALUES (1)").unwrap();
    proxy.wait_for_rows([1], secs(20));
    assert_eq!(proxy.requests()[0].path, url);
    proxy.assert_all_signed();
}

#[test]
fn a_proxy_with_a_password_is_refused_by_the_setting() {
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect();
    let error = client.batch_execute("ALTER SYSTEM SET webhook_pg.proxy = 'http://ann:pw@127.0.0.1:3128'");
    let error = error.expect_err("settings hold no secrets");
    assert_eq!(error.as_db_error().unwrap().code().code(), "22023");
    assert!(error.as_db_error().unwrap().detail().unwrap_or_default().contains("http://host:port"));
}
