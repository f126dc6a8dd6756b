//! A secret that is replaced while events are under way.

use postgres::error::SqlState;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::{Reply, Request};
use crate::writers::Writers;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The signature of a request under this secret.
fn signature(request: &Request, secret: &str) -> String {
    let webhook = standardwebhooks::Webhook::new(secret).unwrap();
    webhook.sign(request.id(), request.timestamp(), &request.body).unwrap()
}

/// Which of the old and the new secret signed this request, and how many secrets did.
fn signers(request: &Request) -> (bool, bool, usize) {
    let signatures: Vec<&str> = request.header("webhook-signature").split(' ').collect();
    let by = |secret: &str| signatures.contains(&signature(request, secret).as_str());
    (by(OLD), by(NEW), signatures.len())
}

#[test]
fn under_load_every_request_of_a_rotation_bears_the_old_or_the_new_signature_and_afterwards_the_new_alone() {
    let cluster = Cluster::start(&[]);
    let options = format!(", secret => '{OLD}'");
    let mut scene = Scene::new(&cluster, "rotation_load", &options, |_, _| Reply::ok());
    scene.receiver.trust(NEW);
    let writers = Writers::start(&scene, 5, "", millis(9));
    wait_until("it is under way", secs(20), || {
        holds(scene.receiver.count() > 200, || format!("{} requests", scene.receiver.count()))
    });
    let rotate = "SELECT webhook_rotate_secret($1, '2 s', $2)";
    scene.client.query_one(rotate, &[&scene.endpoint, &NEW]).unwrap();
    let rotated = scene.receiver.count();
    wait_until("the overlap is over", secs(20), || {
        let last = scene.receiver.requests().pop().unwrap();
        holds(signers(&last) == (false, true, 1), || format!("{:?}", signers(&last)))
    });
    let over = scene.receiver.count();
    let more = over + size(500, 5000);
    wait_until("more have come", secs(60), || {
        holds(scene.receiver.count() > more, || format!("{} requests", scene.receiver.count()))
    });
    let written = writers.stop();
    scene.wait_until_drained(secs(30));
    assert!(written.len() > 500, "{} rows are no load", written.len());
    scene.receiver.assert_all_signed();
    let all: Vec<_> = scene.receiver.requests().iter().map(signers).collect();
    assert!(all[..rotated].contains(&(true, false, 1)) && all[rotated..over].contains(&(true, true, 2)));
    assert!(all.iter().all(|(old, new, _)| *old || *new));
    assert!(all[over..].iter().all(|signers| *signers == (false, true, 1)), "the old secret signs again");
    let ledger = scene.ledger();
    assert!(ledger.lost.is_empty() && ledger.ghosts.is_empty() && ledger.duplicates == 0, "{ledger:?}");
}

#[test]
fn ten_secrets_may_be_in_force_and_sign_and_an_eleventh_is_refused() {
    let mut scene = Scene::accepting("rotation_many");
    let rotate = "SELECT webhook_rotate_secret($1, '1 hour')";
    for _ in 0..9 {
        let secret: String = scene.client.query_one(rotate, &[&scene.endpoint]).unwrap().get(0);
        scene.receiver.trust(&secret);
    }
    let error = scene.client.query_one(rotate, &[&scene.endpoint]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED));
    scene.fence(1);
    let request = scene.receiver.requests().remove(0);
    assert_eq!(request.header("webhook-signature").split(' ').count(), 10);
    scene.receiver.assert_all_signed();
}

#[test]
fn every_request_of_a_rotation_verifies_with_the_old_or_the_new_secret_and_an_expired_one_signs_no_more() {
    let mut scene = Scene::accepting("rotation_plain");
    scene.insert(1..=20);
    let rotate = "SELECT webhook_rotate_secret($1, $2::text::interval)";
    let rotated = |scene: &mut Scene<'_>, overlap: &str| -> String {
        scene.client.query_one(rotate, &[&scene.endpoint, &overlap]).unwrap().get(0)
    };
    let second = rotated(&mut scene, "1 hour");
    scene.receiver.trust(&second);
    scene.insert(21..=40);
    scene.receiver.wait_for_rows(1..=40, secs(20));
    scene.receiver.assert_all_signed();
    // Two sign now, and after a moment only the newest: nobody changes anything in between.
    let third = rotated(&mut scene, "1 s");
    scene.receiver.trust(&third);
    let mut id = 41;
    wait_until("one secret is left", secs(20), || {
        scene.fence(id);
        id += 1;
        let last = scene.receiver.requests().pop().unwrap();
        let signatures = last.header("webhook-signature").split(' ').count();
        holds(signatures == 1, || format!("{signatures} sign"))
    });
    scene.receiver.assert_all_signed();
}
