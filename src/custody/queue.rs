//! Requests that wait for a token: callers in turn, each caller's own in the order in which they came.
//! When the queue is full, whoever has most in it is turned away, so that one who floods it holds up
//! himself.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What tells callers apart: a hash, good enough to be fair by.
pub(super) type Caller = u64;

/// Empty queues of callers that are kept for those who come: most callers have one request waiting at
/// a time, and would make and free a queue for each.
const SPARES: usize = 64;

/// One that was longer is let go of.
const SHORT: usize = 8;

/// The queue; its bound holds for all callers together.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
    closed: Notify,
    bound: usize,
}

struct State<T> {
    /// Callers who have something waiting, the next one first.
    turns: VecDeque<Caller>,
    waiting: HashMap<Caller, VecDeque<T>>,
    /// How much those have waiting who have more than one: whoever has most is found without looking
    /// at all, and who has one at a time, as most do, pays nothing for it.
    several: BTreeSet<(usize, Caller)>,
    spares: Vec<VecDeque<T>>,
    len: usize,
    closed: bool,
    /// Servers that wait for something to come.
    idle: usize,
    /// One of them was woken and has not come yet. What comes until it does is for it too: waking
    /// another costs more than that one has to do.
    woken: bool,
}

/// Why something was not taken, or what had to go for it.
pub(super) enum Pushed<T> {
    /// It waits.
    Taken,
    /// It waits in the place of this one, of the caller with most in the queue.
    InPlaceOf(T),
    /// The queue is full, and nobody has more in it than this caller.
    Full(T),
    /// The queue is closed.
    Closed(T),
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        let (turns, waiting, spares) = (VecDeque::new(), HashMap::new(), Vec::new());
        let state = Mutex::new(State {
            turns,
            waiting,
            several: BTreeSet::new(),
            spares,
            len: 0,
            closed: false,
            idle: 0,
            woken: false,
        });
        Self { state, arrived: Notify::new(), closed: Notify::new(), bound }
    }

    /// Adds something of a caller's, at once.
    pub(super) fn push(&self, caller: Caller, item: T) -> Pushed<T> {
        let mut state = self.state.lock();
        if state.closed {
            return Pushed::Closed(item);
        }
        let mut evicted = None;
        if state.len >= self.bound {
            evicted = state.evict(caller);
            if evicted.is_none() {
                return Pushed::Full(item);
            }
        }
        state.add(caller, |own| own.push_back(item));
        self.wake(state);
        evicted.map_or(Pushed::Taken, Pushed::InPlaceOf)
    }

    /// Puts back what was taken out, before everything else of its caller's; the bound does not count.
    pub(super) fn put_back(&self, caller: Caller, item: T) {
        let mut state = self.state.lock();
        state.add(caller, |own| own.push_front(item));
        self.wake(state);
    }

    /// Wakes one server, unless none waits, or one is on its way already: the one that was last at
    /// work, whose caches are warm.
    fn wake(&self, mut state: MutexGuard<'_, State<T>>) {
        let wakes = state.idle > 0 && !state.woken;
        state.woken |= wakes;
        drop(state);
        if wakes {
            self.arrived.notify_last();
        }
    }

    /// Takes the next one out, of the caller whose turn it is, and waits for it if there is none. If it
    /// `fits`, also those after it that do: a share of what waits, one of so many, and at most so many.
    /// Nothing once the queue is closed and empty.
    ///
    /// One that `gathers` lets the tasks that are ready have their turn first when it is woken: what
    /// they ask comes along.
    pub(super) async fn pop(
        &self,
        (shares, most, gathers): (usize, usize, bool),
        fits: impl Fn(&T) -> bool,
        into: &mut Vec<(Caller, T)>,
    ) {
        while let Some(arrived) = self.take(shares, most, &fits, into) {
            let idle = Idle(self);
            arrived.await;
            if gathers {
                tokio::task::yield_now().await;
            }
            drop(idle);
        }
    }

    /// As [`Queue::pop`]; comes back with what is to be waited for if there is nothing yet.
    fn take(
        &self,
        shares: usize,
        most: usize,
        fits: impl Fn(&T) -> bool,
        into: &mut Vec<(Caller, T)>,
    ) -> Option<Notified<'_>> {
        let mut state = self.state.lock();
        if state.len == 0 && !state.closed {
            state.idle += 1;
            // Made under the lock: it hears of all that comes from now on.
            return Some(self.arrived.notified());
        }
        let share = state.len.div_ceil(shares.max(1));
        let mut fitting = state.next().is_some_and(&fits);
        into.extend(state.take());
        for _ in 1..share.min(most) {
            fitting = fitting && state.next().is_some_and(&fits);
            if !fitting {
                break;
            }
            into.extend(state.take());
        }
        if state.len > 0 {
            self.wake(state);
        }
        None
    }

    /// Waits for this long, or until the queue is closed.
    pub(super) async fn rest(&self, time: Duration) {
        let closed = self.closed.notified();
        if !self.state.lock().closed {
            drop(tokio::time::timeout(time, closed).await);
        }
    }

    /// Takes nothing any more; what waits is still handed out.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_waiters();
        self.closed.notify_waiters();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().len
    }
}

/// A server that waits; or waited, and comes or is gone.
struct Idle<'a, T>(&'a Queue<T>);

impl<T> Drop for Idle<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.idle = state.idle.saturating_sub(1);
        state.woken = false;
    }
}

impl<T> State<T> {
    fn add(&mut self, caller: Caller, put: impl FnOnce(&mut VecDeque<T>)) {
        let spare = || self.spares.pop().unwrap_or_default();
        let own = self.waiting.entry(caller).or_insert_with(spare);
        if own.is_empty() {
            self.turns.push_back(caller);
        }
        put(own);
        let count = own.len();
        self.len += 1;
        self.recount(caller, count.saturating_sub(1), count);
    }

    /// One caller has another number waiting than before.
    fn recount(&mut self, caller: Caller, before: usize, now: usize) {
        if before > 1 {
            self.several.remove(&(before, caller));
        }
        if now > 1 {
            self.several.insert((now, caller));
        }
    }

    fn next(&self) -> Option<&T> {
        self.waiting.get(self.turns.front()?)?.front()
    }

    fn take(&mut self) -> Option<(Caller, T)> {
        let caller = self.turns.pop_front()?;
        let own = self.waiting.get_mut(&caller)?;
        let item = own.pop_front()?;
        let left = own.len();
        if left == 0 {
            let empty = self.waiting.remove(&caller);
            let kept = empty.filter(|own| own.capacity() <= SHORT && self.spares.len() < SPARES);
            self.spares.extend(kept);
        } else {
            self.turns.push_back(caller);
        }
        self.len = self.len.saturating_sub(1);
        self.recount(caller, left.saturating_add(1), left);
        Some((caller, item))
    }

    /// Takes out the newest of the caller with most in the queue, if that is more than `newcomer` would
    /// have.
    fn evict(&mut self, newcomer: Caller) -> Option<T> {
        let (count, most) = *self.several.last()?;
        let mine = self.waiting.get(&newcomer).map_or(0, VecDeque::len);
        if most == newcomer || count <= mine + 1 {
            return None;
        }
        // More than one waits, so that the turn stays.
        let newest = self.waiting.get_mut(&most)?.pop_back();
        self.len = self.len.saturating_sub(1);
        self.recount(most, count, count.saturating_sub(1));
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(queue: &Queue<u32>, caller: Caller, item: u32) -> bool {
        matches!(queue.push(caller, item), Pushed::Taken)
    }

    fn now<F: Future>(work: F) -> F::Output {
        let reactor = tokio::runtime::Builder::new_current_thread().enable_time().build();
        reactor.expect("a reactor").block_on(work)
    }

    fn one(queue: &Queue<u32>) -> Option<(Caller, u32)> {
        let mut into = Vec::new();
        now(queue.pop((1, 1, false), |_| true, &mut into));
        into.pop()
    }

    fn drained(queue: &Queue<u32>) -> Vec<u32> {
        queue.close();
        std::iter::from_fn(|| one(queue)).map(|(_, item)| item).collect()
    }

    #[test]
    fn callers_take_turns_and_each_keeps_its_order() {
        let queue = Queue::new(10);
        for item in [10, 11, 12] {
            assert!(taken(&queue, 1, item));
        }
        assert!(taken(&queue, 2, 20) && taken(&queue, 3, 30));
        assert_eq!(drained(&queue), [10, 20, 30, 11, 12]);
    }

    #[test]
    fn who_floods_a_full_queue_gives_way_and_is_turned_away() {
        let queue = Queue::new(3);
        for item in [10, 11, 12] {
            assert!(taken(&queue, 1, item));
        }
        assert!(matches!(queue.push(1, 13), Pushed::Full(13)));
        assert!(matches!(queue.push(2, 20), Pushed::InPlaceOf(12)));
        assert!(matches!(queue.push(2, 21), Pushed::Full(21)), "nobody has more than they would");
        assert_eq!(queue.len(), 3);
        assert_eq!(drained(&queue), [10, 20, 11]);
    }

    #[test]
    fn a_thread_takes_its_share_in_turn_and_stops_at_what_does_not_fit() {
        let queue = Queue::new(20);
        for (caller, item) in (0..).zip(0..12) {
            assert!(taken(&queue, caller % 2, item));
        }
        let share = |shares, most, fits: fn(&u32) -> bool| {
            let mut into = Vec::new();
            now(queue.pop((shares, most, true), fits, &mut into));
            into.into_iter().map(|(_, item)| item).collect::<Vec<_>>()
        };
        assert_eq!(share(4, 16, |_| true), [0, 1, 2]);
        assert_eq!(share(1, 2, |_| true), [3, 4]);
        assert_eq!(share(1, 16, |item| *item != 7), [5, 6]);
        assert_eq!(share(1, 16, |item| *item != 7), [7], "alone, and the others by themselves");
        assert_eq!(share(9, 16, |_| true), [8]);
        assert_eq!(drained(&queue), [9, 10, 11]);
    }

    #[test]
    fn what_is_put_back_is_its_caller_s_next() {
        let queue = Queue::new(2);
        assert!(taken(&queue, 1, 10) && taken(&queue, 1, 11));
        let (caller, item) = one(&queue).expect("one");
        queue.put_back(caller, item);
        assert_eq!(drained(&queue), [10, 11]);
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_wakes_those_who_wait() {
        let queue = Queue::<u32>::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| one(&queue));
            let resting = scope.spawn(|| now(queue.rest(Duration::from_secs(60))));
            queue.close();
            assert!(waiting.join().expect("no panic").is_none());
            resting.join().expect("no panic");
        });
        assert!(matches!(queue.push(1, 1), Pushed::Closed(1)));
        now(queue.rest(Duration::from_secs(60)));
    }

    #[test]
    fn whoever_is_woken_wakes_the_next_if_something_is_left() {
        let queue = Queue::<u32>::new(1000);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut count = 0;
                        while one(&queue).is_some() {
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            for item in 0..1000 {
                assert!(taken(&queue, 1, item));
                if item % 50 == 0 {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
            let start = std::time::Instant::now();
            while queue.len() > 0 {
                assert!(start.elapsed() < Duration::from_secs(10), "nobody comes");
                std::thread::yield_now();
            }
            queue.close();
            let counts = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            assert_eq!(counts.sum::<usize>(), 1000);
        });
    }

    proptest! {
        /// However callers come and go, the queue keeps to its bound, nothing is lost or handed out
        /// twice, and each caller's own come out in their order.
        #[test]
        fn nothing_is_lost_and_every_caller_keeps_its_order(
            steps in proptest::collection::vec((0u64..4, any::<bool>()), 0..200),
            bound in 1usize..8,
        ) {
            let queue = Queue::new(bound);
            let (mut came, mut went) = (Vec::new(), Vec::new());
            for (at, (caller, pop)) in (0u32..).zip(steps) {
                if pop && queue.len() > 0 {
                    went.extend(one(&queue));
                    continue;
                }
                match queue.push(caller, at) {
                    Pushed::Taken => came.push((caller, at)),
                    Pushed::InPlaceOf(gone) => {
                        came.retain(|(_, item)| *item != gone);
                        came.push((caller, at));
                    }
                    Pushed::Full(item) => prop_assert_eq!(item, at),
                    Pushed::Closed(_) => prop_assert!(false),
                }
                prop_assert!(queue.len() <= bound);
                let state = queue.state.lock();
                let several = state.waiting.iter().map(|(caller, own)| (own.len(), *caller));
                let several: BTreeSet<_> = several.filter(|(count, _)| *count > 1).collect();
                prop_assert_eq!(&state.several, &several);
            }
            queue.close();
            went.extend(std::iter::from_fn(|| one(&queue)));
            for caller in 0..4 {
                let own = |all: &[(u64, u32)]| -> Vec<u32> {
                    all.iter().filter(|(who, _)| *who == caller).map(|(_, item)| *item).collect()
                };
                prop_assert_eq!(own(&went), own(&came));
            }
        }
    }
}
