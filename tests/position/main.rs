//! Promises of `webhook_pg::position`, against a model of PostgreSQL that runs random schedules of transactions.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes helpers of a test file for production code"
)]

mod database;
mod readers;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use webhook_pg::event::Place;
use webhook_pg::position::{Leg, Position, Snapshot};

use database::{Database, SESSIONS, assert_same, schedules};
use readers::{Lane, Reader, Worker, read, run_worker};

/// Two moments in the life of some transactions, the first seen within the second.
fn two_moments() -> impl Strategy<Value = (Snapshot, Snapshot)> {
    prop::collection::vec(0..3_u8, 0..20).prop_map(|fates| {
        let at = |moment: u8| {
            let completed = |n: usize| fates[n] <= moment;
            let xmax = (0..fates.len()).rev().find(|n| completed(*n)).map_or(0, |n| n + 1);
            let xip: Vec<_> = (0..xmax).filter(|n| !completed(*n)).map(|n| n as u64 + 5).collect();
            Snapshot::new(xip.first().map_or(xmax as u64 + 5, |xid| *xid), xmax as u64 + 5, xip).unwrap()
        };
        (at(0), at(1))
    })
}

/// Any snapshot over small ids, also with an xmin lower than need be.
fn snapshots() -> impl Strategy<Value = Snapshot> {
    (1..12_u64, prop::collection::vec(any::<bool>(), 0..12)).prop_map(|(xmin, runs)| {
        let xip = (xmin..).zip(&runs).filter(|(_, runs)| **runs).map(|(xid, _)| xid).collect();
        Snapshot::new(xmin, xmin + runs.len() as u64, xip).unwrap()
    })
}

proptest! {
    // A third of what PROPTEST_CASES says: one case is a long schedule, and there are many promises.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 3, ..ProptestConfig::default() })]

    #[test]
    fn the_head_gets_every_committed_event_exactly_once(schedule in schedules()) {
        let (db, got) = read(&schedule, Reader::new(4));
        db.assert_exactly_once(&got);
    }

    #[test]
    fn a_lagging_position_gets_every_committed_event_exactly_once(schedule in schedules(), every in 2..50_u8) {
        let mut reader = Reader::new(2);
        let db = Database::run(&schedule, |db, n| if n % every == 0 { reader.step(db) });
        db.assert_exactly_once(&reader.drain(&db));
    }

    #[test]
    fn the_size_of_a_chunk_loses_and_repeats_nothing(schedule in schedules()) {
        for chunk in [1, 2, 3, 7, 20, 1000] {
            let (db, got) = read(&schedule, Reader::new(chunk));
            db.assert_exactly_once(&got);
        }
    }

    #[test]
    fn a_position_saved_and_reloaded_at_every_point_loses_and_repeats_nothing(schedule in schedules()) {
        let (db, got) = read(&schedule, Reader { reloads: true, ..Reader::new(3) });
        db.assert_exactly_once(&got);
    }

    #[test]
    fn a_position_knows_at_every_point_exactly_what_it_has_consumed(schedule in schedules()) {
        let mut reader = Reader::new(2);
        Database::run(&schedule, |db, _| {
            reader.step(db);
            for place in db.committed_places() {
                assert_eq!(reader.position.consumed(place), reader.got.contains(&place), "{place:?}");
            }
        });
    }

    #[test]
    fn the_events_of_a_key_arrive_in_the_order_of_its_writers(schedule in schedules(), chunk in 1..10_usize) {
        let (db, got) = read(&schedule, Reader::new(chunk));
        db.assert_key_order(&got);
    }

    #[test]
    fn an_event_of_an_aborted_or_running_transaction_never_arrives(schedule in schedules()) {
        let mut reader = Reader::new(2);
        Database::run(&schedule, |db, _| {
            reader.step(db);
            let committed = db.committed_places();
            assert!(reader.got.iter().all(|place| committed.contains(place)));
        });
    }

    #[test]
    fn a_running_transaction_holds_nothing_back(schedule in schedules()) {
        let mut reader = Reader::new(1000);
        Database::run(&schedule, |db, _| {
            // The rest of the open batch, then one that begins and ends now.
            for _ in 0..4 {
                reader.step(db);
            }
            db.assert_exactly_once(&reader.got);
        });
    }

    #[test]
    fn detach_and_join_lose_and_repeat_nothing(schedule in schedules(), chunk in 1..10_usize) {
        let (db, worker) = run_worker(&schedule, chunk);
        db.assert_exactly_once(&worker.head.got);
        for lane in worker.lanes {
            db.assert_exactly_once(&lane.got);
        }
    }

    #[test]
    fn detach_and_join_keep_the_order_of_a_key(schedule in schedules(), chunk in 1..10_usize) {
        let (db, worker) = run_worker(&schedule, chunk);
        for lane in worker.lanes {
            db.assert_key_order(&lane.got);
        }
    }

    #[test]
    fn the_legs_end_where_the_head_stands(schedule in schedules()) {
        let mut worker = Worker::new(2);
        Database::run(&schedule, |db, n| {
            worker.step(db, n);
            let head = &worker.head.position;
            for own in worker.lanes.iter().filter_map(|lane| lane.own.as_ref()) {
                if let Some(leg) = own.legs_to(head).and_then(|mut legs| legs.pop()) {
                    let end = leg.end();
                    assert_eq!((&end.done, end.seq), (&head.done, head.seq));
                }
            }
        });
    }

    #[test]
    fn a_head_that_restarts_from_an_older_mark_loses_nothing_for_any_lane(schedule in schedules(), every in 5..40_u8) {
        let mut worker = Worker::new(3);
        let mut saved = worker.head.position.clone();
        let db = Database::run(&schedule, |db, n| match n % every {
            0 => saved = worker.head.position.clone(),
            1 => worker.head.position = saved.clone(),
            _ => worker.step(db, n),
        });
        worker.drain(&db);
        for lane in worker.lanes {
            let got: BTreeSet<_> = lane.got.into_iter().collect();
            db.assert_exactly_once(&Vec::from_iter(got));
        }
    }

    #[test]
    fn an_endpoint_registered_in_the_middle_gets_exactly_what_had_not_committed_then(
        schedule in schedules(), point in 0..20_u32, session in 0..SESSIONS,
    ) {
        let mut worker = Worker { lanes: Vec::new(), ..Worker::new(3) };
        let mut countdown = point;
        // The transaction that registers, its snapshot, and what had committed before.
        let mut registration = None;
        let enter = |worker: &mut Worker, db: &Database, registration: &Option<(u64, Snapshot, Vec<Place>)>| {
            if let Some((xid, snapshot, _)) = registration
                && worker.lanes.is_empty()
                && !db.running.contains(xid)
            {
                worker.lanes.push(Lane { own: Some(Position::new(snapshot.clone())), chunk: 2, got: Vec::new() });
            }
        };
        let db = Database::run(&schedule, |db, n| {
            if countdown == 0 && registration.is_none() {
                let own = db.transaction(session).xid;
                let snapshot = db.snapshot_in(Some(own)).without(own);
                registration = Some((own, snapshot, db.committed_places()));
            }
            countdown = countdown.saturating_sub(1);
            enter(&mut worker, db, &registration);
            if worker.lanes.is_empty() { worker.head.step(db) } else { worker.step(db, n) }
        });
        enter(&mut worker, &db, &registration);
        worker.drain(&db);
        if let (Some((_, _, before)), Some(lane)) = (registration, worker.lanes.pop()) {
            let after: Vec<_> = db.committed_places().into_iter().filter(|p| !before.contains(p)).collect();
            assert_same(&lane.got, &after);
        }
    }
}

proptest! {
    #[test]
    fn a_leg_wants_what_the_ranges_of_the_index_and_the_database_say(
        (done, upto) in two_moments(), from in 0..8_i64, last in prop_oneof![0..8_i64, Just(i64::MAX)],
    ) {
        let mut position = Position::new(done.clone());
        position.begin(Arc::new(upto.clone())).unwrap();
        position.advance_to(from);
        let leg = Leg { from: position, last };
        let ranges = leg.ranges();
        prop_assert!(ranges.iter().all(|(from, to)| from < to));
        for xid in 1..60 {
            let times = ranges.iter().filter(|(from, to)| (*from..*to).contains(&xid)).count();
            prop_assert_eq!(times, usize::from(upto.sees(xid) && !done.sees(xid)));
        }
        for place in (1..30).flat_map(|xid| (1..9).map(move |seq| Place { xid, seq })) {
            let in_ranges = place.xid >= done.xmax() || done.xip().contains(&place.xid);
            // As the documentation of pg_snapshot says it.
            let visible = place.xid < upto.xmax() && !upto.xip().contains(&place.xid);
            prop_assert_eq!(leg.wants(place), in_ranges && visible && place.seq > from && place.seq <= last);
        }
    }

    #[test]
    fn is_within_agrees_with_its_definition(a in snapshots(), b in snapshots(), moments in two_moments()) {
        for (a, b) in [(&a, &b), (&b, &a), (&moments.0, &moments.1), (&moments.1, &moments.0), (&a, &moments.1)] {
            let by_definition = (0..60).all(|xid| !a.sees(xid) || b.sees(xid));
            prop_assert_eq!(a.is_within(b), by_definition, "{} within {}", a, b);
        }
    }

    #[test]
    fn without_hides_one_transaction_and_nothing_else(snapshot in snapshots(), own in 1..40_u64) {
        let hidden = snapshot.without(own);
        for xid in 0..60 {
            prop_assert_eq!(hidden.sees(xid), snapshot.sees(xid) && xid != own);
        }
        prop_assert_eq!(Snapshot::parse(&hidden.to_string()), Ok(hidden));
    }

    #[test]
    fn a_snapshot_survives_its_text_form(snapshot in snapshots()) {
        prop_assert_eq!(Snapshot::parse(&snapshot.to_string()), Ok(snapshot));
    }

    #[test]
    fn no_text_panics_the_parser(text in "\\PC{0,20}|[0-9:,]{0,30}") {
        _ = Snapshot::parse(&text);
    }
}

#[test]
fn the_text_form_is_that_of_pg_snapshot() {
    let snapshot = Snapshot::parse("10:20:10,14,15").unwrap();
    assert_eq!((snapshot.xmin(), snapshot.xmax(), snapshot.xip()), (10, 20, &[10, 14, 15][..]));
    assert_eq!(snapshot.to_string(), "10:20:10,14,15");
    assert_eq!(Snapshot::parse("7:7:").unwrap().to_string(), "7:7:");
    // PostgreSQL drops repeated ids, too.
    assert_eq!(Snapshot::parse("10:20:14,14").unwrap().to_string(), "10:20:14");
}

#[test]
fn what_postgresql_refuses_as_a_snapshot_is_refused() {
    for bad in [
        "",
        ":",
        "::",
        "1",
        "1:2",
        "31:12:",
        "0:1:",
        "12:13:0",
        "12:13:13",
        "12:16:14,13",
        "+1:2:",
        "1:2:x",
        "1:2:,",
        "-1:2:",
        " 1:2:",
        "1:2: ",
        "1:2:3:4",
        "99999999999999999999:1:",
    ] {
        assert!(Snapshot::parse(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn an_open_batch_is_not_replaced() {
    let at = |text| Arc::new(Snapshot::parse(text).unwrap());
    let mut position = Position::new(Snapshot::parse("5:5:").unwrap());
    position.begin(at("7:7:")).unwrap();
    assert!(position.begin(at("9:9:")).is_err());
    assert_eq!(position.upto, Some(at("7:7:")));
}

#[test]
fn a_snapshot_that_does_not_see_what_is_consumed_begins_no_batch() {
    let position = Position::new(Snapshot::parse("7:9:7").unwrap());
    for text in ["6:6:", "7:9:7,8", "6:9:6,7"] {
        assert!(position.clone().begin(Arc::new(Snapshot::parse(text).unwrap())).is_err(), "{text}");
        assert!(Position::from_columns("7:9:7", Some(text), 3).is_err(), "{text}");
    }
}

#[test]
fn a_reader_that_is_ahead_of_the_head_does_not_join() {
    let at = |done, upto, seq| Position::from_columns(done, upto, seq).unwrap();
    let head = at("5:5:", Some("9:9:"), 3);
    for ahead in [at("5:5:", Some("9:9:"), 7), at("9:9:", None, 0), at("9:9:", Some("11:11:"), 1)] {
        assert_eq!(ahead.legs_to(&head), None, "{ahead:?}");
    }
    assert_eq!(head.legs_to(&head), Some(Vec::new()));
}

#[test]
fn a_batch_begins_before_its_first_event() {
    let mut position = Position { seq: 40, ..Position::new(Snapshot::parse("5:5:").unwrap()) };
    position.begin(Arc::new(Snapshot::parse("9:9:").unwrap())).unwrap();
    assert!(position.wants(Place { xid: 6, seq: 1 }));
}

#[test]
fn a_position_never_moves_back_and_moves_only_within_a_batch() {
    let mut position = Position::from_columns("5:5:", Some("9:9:"), 40).unwrap();
    position.advance_to(30);
    assert_eq!(position.seq, 40);
    position.finish();
    position.advance_to(50);
    assert_eq!(position, Position::from_columns("9:9:", None, 50).unwrap());
    assert_eq!(position.seq, 0);
}
