//! How far the outbox has been read: the pure arithmetic of reading a log that commits out of order.
//!
//! Sequence order is not commit order: a transaction may take number 7 and commit after another has taken 8 and
//! committed. A cursor that keeps the highest number seen skips 7 for ever. So a [`Position`] is made of snapshots:
//! everything that `done` sees is consumed, and while a batch is open (`upto` is set) so is what `upto` sees with a
//! number up to `seq`. PgQ, the queue of Skytools, has read its event tables between two snapshots for years; here the
//! batch is cut by sequence number as well, so that it can be huge and still be left and taken up at any event.
//!
//! ```text
//! xid      1  2  3  4  5  6  7  8  9
//! done     ■  ■  ·  ■  ·  ·  ·  ·  ·    3:5:3      ■ seen: completed when the snapshot was taken
//! upto     ■  ■  ■  ■  ·  ■  ·  ■  ·    5:9:5,7    · not seen: running, or not yet started
//! batch          3        6     8       seen by upto and not by done: xid ∈ xip(done) or xid ≥ xmax(done)
//! later                5     7     9    still running: in the batch that begins after they commit
//! ```
//!
//! Why it is right:
//!
//! - *Nothing is lost, nothing comes twice.* `done` only ever becomes `upto`, which sees all that `done` saw. A transaction
//!   is therefore first seen by exactly one `upto`, and its events stand in that one batch. Once a snapshot sees a
//!   transaction, the set of its events is fixed, so within the batch a cursor over `seq` is safe.
//! - *Aborted transactions* are seen too, in the sense of the arithmetic, but their rows are visible to nobody.
//! - *A running or prepared transaction* is not seen. It stands in `xip`, delays nothing, and comes later.
//! - *Order per row.* A writer takes its number after its row lock, and the lock is freed after the transaction left
//!   the list of running ones. So the next writer of the row has a higher number, and no snapshot sees it without its
//!   predecessor: the same batch or a later one, and after it within the batch.
//! - *After a crash.* The position's commit stands in the WAL behind the end of every transaction it claims to have
//!   seen, so no surviving position knows of a transaction id that will be given out again.
//!
//! An endpoint that cannot follow the head leaves it with a copy of the head's position at the last event it took (*detach*)
//! and reads on its own. [`Position::legs_to`] says what it must still read to stand where the head stands (*join*).

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::event::Place;

/// Which transactions had completed at a moment; PostgreSQL's `pg_snapshot`.
///
/// A snapshot of a standby must not be used: there `xip` is empty while transactions run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// Strictly ascending, each in `xmin..xmax`.
    xip: Vec<u64>,
}

impl Snapshot {
    /// A snapshot of these parts. `xip` must be ascending (a repeated id is dropped, as PostgreSQL does).
    ///
    /// # Errors
    /// What PostgreSQL would refuse as a `pg_snapshot`: a zero, `xmin` over `xmax`, an id outside `xmin..xmax`, disorder.
    pub fn new(xmin: u64, xmax: u64, mut xip: Vec<u64>) -> Result<Self> {
        xip.dedup();
        let in_range = xip.iter().all(|xid| (xmin..xmax).contains(xid));
        if xmin == 0 || xmin > xmax || !in_range || !xip.is_sorted() {
            return Err(Error::invalid("snapshot has impossible bounds")
                .detail(format!("The snapshot is {}.", Self { xmin, xmax, xip })));
        }
        Ok(Self { xmin, xmax, xip })
    }

    /// Reads the text form of `pg_snapshot`, `xmin:xmax:xip,…`.
    ///
    /// # Errors
    /// The text is not of that form, or [`Snapshot::new`] refuses the parts.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || {
            Error::invalid("snapshot is not of the form xmin:xmax:xip")
                .detail(format!("The snapshot is {text:?}."))
                .hint("Use what pg_current_snapshot() returns.")
        };
        // `u64::from_str` alone would take a leading plus sign.
        let number = |digits: &str| {
            digits
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
                .ok_or_else(malformed)
        };
        let mut parts = text.splitn(3, ':');
        let (Some(xmin), Some(xmax), Some(list)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let xip = match list {
            "" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<_>>()?,
        };
        Self::new(number(xmin)?, number(xmax)?, xip)
    }

    /// Every lower id had completed.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// This id and every higher one had not completed.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The ids between `xmin` and `xmax` that had not completed, ascending.
    pub fn xip(&self) -> &[u64] {
        &self.xip
    }

    /// Whether the transaction had completed; the same answer as `pg_visible_in_snapshot`.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    /// Whether `other` sees everything that this snapshot sees. Exact, for snapshots of any origin: not a guess from
    /// `xmin` or `xmax` about which was taken earlier.
    pub fn is_within(&self, other: &Self) -> bool {
        // Seen from the other side: whatever `other` does not see, this must not see either. That is each of its xip …
        let hides_xip = other.xip.iter().all(|&xid| !self.sees(xid));
        // … and everything from its xmax on. Where this snapshot reaches further, all of the surplus must be running.
        let running = self.xip.len() - self.xip.partition_point(|&xid| xid < other.xmax);
        let surplus = self.xmax.saturating_sub(other.xmax);
        hides_xip && u64::try_from(running) == Ok(surplus)
    }

    /// The same snapshot, but the transaction `xid` counts as running.
    ///
    /// A snapshot never lists the transaction it was taken in. If that one writes to the outbox, its events would count
    /// as consumed as soon as a later transaction has completed.
    #[must_use]
    pub fn without(&self, xid: u64) -> Self {
        let mut hidden = self.clone();
        if let (true, Err(at)) = (xid < self.xmax, self.xip.binary_search(&xid)) {
            hidden.xip.insert(at, xid);
            hidden.xmin = hidden.xmin.min(xid);
        }
        hidden
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (n, xid) in self.xip.iter().enumerate() {
            write!(f, "{}{xid}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// How far a reader has consumed the outbox. Cheap to clone: the snapshots are shared.
///
/// A clone with its `seq` at an event is that event's *mark*: where a reader stands that took the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Everything it sees is consumed.
    pub done: Arc<Snapshot>,
    /// The open batch reaches up to here. Sees all that `done` sees.
    pub upto: Option<Arc<Snapshot>>,
    /// Of the open batch, consumed up to this number. 0 (before the first: the outbox counts from 1) without a batch.
    pub seq: i64,
}

impl Position {
    /// Everything that `done` sees is consumed, and no batch is open.
    pub fn new(done: Snapshot) -> Self {
        Self { done: Arc::new(done), upto: None, seq: 0 }
    }

    /// Reads a row of `webhook.position`: the texts of `done` and `upto`, and `seq`.
    ///
    /// # Errors
    /// A text is not a snapshot, or `upto` does not see what `done` sees.
    pub fn from_columns(done: &str, upto: Option<&str>, seq: i64) -> Result<Self> {
        let mut position = Self::new(Snapshot::parse(done)?);
        if let Some(upto) = upto {
            position.begin(Arc::new(Snapshot::parse(upto)?))?;
            position.advance_to(seq);
        }
        Ok(position)
    }

    /// Whether the event has been consumed.
    pub fn consumed(&self, place: Place) -> bool {
        self.done.sees(place.xid)
            || (place.seq <= self.seq && self.upto.as_ref().is_some_and(|upto| upto.sees(place.xid)))
    }

    /// Whether the event belongs to the open batch and is still to be consumed.
    pub fn wants(&self, place: Place) -> bool {
        !self.consumed(place) && self.upto.as_ref().is_some_and(|upto| upto.sees(place.xid))
    }

    /// Opens a batch up to this snapshot, which was taken in a transaction that has not written to the outbox (or is
    /// [without](Snapshot::without) it).
    ///
    /// # Errors
    /// A batch is open, which would be forgotten. Or the snapshot does not see all that is consumed: this position comes
    /// from another cluster, or from a later time than the database; reading on would lose events without a word.
    pub fn begin(&mut self, upto: Arc<Snapshot>) -> Result<()> {
        if let Some(open) = &self.upto {
            return Err(Error::new(crate::error::Kind::WrongState, "a batch is open already")
                .detail(format!("The open batch reaches up to {open}.")));
        }
        if !self.done.is_within(&upto) {
            return Err(Error::new(crate::error::Kind::WrongState, "position is ahead of the database")
                .detail(format!("Done is {}, the snapshot is {upto}.", self.done))
                .hint("Was the database restored from a copy? See webhook_adopt()."));
        }
        self.upto = Some(upto);
        self.seq = 0;
        Ok(())
    }

    /// Everything of the open batch up to this number is consumed. Never moves back; nothing happens without a batch.
    pub fn advance_to(&mut self, seq: i64) {
        if self.upto.is_some() {
            self.seq = self.seq.max(seq);
        }
    }

    /// The open batch is consumed.
    pub fn finish(&mut self) {
        if let Some(upto) = self.upto.take() {
            self.done = upto;
            self.seq = 0;
        }
    }

    /// What is left of the open batch.
    pub fn rest(&self) -> Option<Leg> {
        let from = self.clone();
        self.upto.is_some().then_some(Leg { from, last: i64::MAX })
    }

    /// What a reader here must consume to stand where `head` stands: exactly what the head has consumed and this reader has
    /// not, in at most three legs, to be read in this order. Empty: it stands there, and may follow the head from now on.
    ///
    /// ```text
    /// self  (S, R, r) ──rest of its batch──▶ (R) ──all──▶ (D) ──up to q──▶ (D, U, q)  head
    /// ```
    ///
    /// The head goes on meanwhile, so ask again after each leg, or after each part of one. `None`: the head has not come
    /// past this reader (which registered a moment ago, or whose position outlived a restart better than the head's).
    /// Then read the [rest](Self::rest) of the own batch, or wait until the head has finished one that began later. A fresh
    /// snapshot instead would only end the next batch ahead of the head again.
    pub fn legs_to(&self, head: &Self) -> Option<Vec<Leg>> {
        let mut at = self.clone();
        if at.upto.is_some() && (&at.done, &at.upto) == (&head.done, &head.upto) {
            // Still in one batch with the head.
            return match at.seq.cmp(&head.seq) {
                std::cmp::Ordering::Less => Some(vec![Leg { from: at, last: head.seq }]),
                std::cmp::Ordering::Equal => Some(Vec::new()),
                std::cmp::Ordering::Greater => None,
            };
        }
        if !at.upto.as_ref().unwrap_or(&at.done).is_within(&head.done) {
            return None;
        }
        let mut legs = Vec::new();
        if let Some(leg) = at.rest() {
            at = leg.end();
            legs.push(leg);
        }
        if at.done != head.done {
            let leg = Leg { from: Self { upto: Some(head.done.clone()), ..at }, last: i64::MAX };
            at = leg.end();
            legs.push(leg);
        }
        if head.upto.is_some() && head.seq > at.seq {
            legs.push(Leg { from: Self { upto: head.upto.clone(), ..at }, last: head.seq });
        }
        Some(legs)
    }
}

/// A part of the outbox to read in one go: what a position with an open batch wants, up to a number.
///
/// In terms of the outbox's primary key: `xid ∈ xip(done)` or `xid ≥ xmax(done)`, of these the ones that `upto` sees
/// ([ranges](Self::ranges)), with `seq > from.seq` and `seq ≤ last`, in the order of `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Where it begins. Its batch is open. While the leg is read, `from` advanced to an event is the mark to save.
    pub from: Position,
    /// The highest number that belongs to it; `i64::MAX` for the whole batch.
    pub last: i64,
}

impl Leg {
    /// Whether the event belongs to the leg.
    pub fn wants(&self, place: Place) -> bool {
        place.seq <= self.last && self.from.wants(place)
    }

    /// The transactions whose events may belong to it, as ranges of ids, the ends excluded: those of the index that are to be
    /// looked at. All others are consumed, or were running and would cost a look at each row that nobody can see yet.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let (done, Some(upto)) = (&self.from.done, &self.from.upto) else { return Vec::new() };
        let mut ranges: Vec<(u64, u64)> =
            done.xip.iter().filter(|xid| upto.sees(**xid)).map(|&xid| (xid, xid + 1)).collect();
        let mut start = done.xmax;
        for &running in upto.xip.iter().filter(|xid| **xid >= done.xmax).chain([&upto.xmax]) {
            if start < running {
                ranges.push((start, running));
            }
            start = running + 1;
        }
        ranges
    }

    /// Where the reader stands when it has read all of it.
    pub fn end(&self) -> Position {
        let mut end = self.from.clone();
        if self.last == i64::MAX {
            end.finish()
        } else {
            end.advance_to(self.last)
        }
        end
    }
}
