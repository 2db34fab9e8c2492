//! Requests that wait for a token: callers in turn, each caller's own in the order in which they came.
//! When the queue is full, whoever has most in it is turned away, so that one who floods it holds up
//! himself.

use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

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
    arrived: Condvar,
    closed: Condvar,
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
        let several = BTreeSet::new();
        let state = State { turns, waiting, several, spares, len: 0, closed: false };
        let state = Mutex::new(state);
        Self { state, arrived: Condvar::new(), closed: Condvar::new(), bound }
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
        drop(state);
        self.arrived.notify_one();
        evicted.map_or(Pushed::Taken, Pushed::InPlaceOf)
    }

    /// Puts back what was taken out, before everything else of its caller's; the bound does not count.
    pub(super) fn put_back(&self, caller: Caller, item: T) {
        self.state.lock().add(caller, |own| own.push_front(item));
        self.arrived.notify_one();
    }

    /// The next one, of the caller whose turn it is. Waits for it; `None` once the queue is closed and
    /// empty.
    pub(super) fn pop(&self) -> Option<(Caller, T)> {
        let mut state = self.state.lock();
        loop {
            if let Some(next) = state.take() {
                return Some(next);
            }
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
    }

    /// Waits for this long, or until the queue is closed.
    pub(super) fn rest(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.closed {
            self.closed.wait_for(&mut state, time);
        }
    }

    /// Takes nothing any more; what waits is still handed out.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
        self.closed.notify_all();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().len
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

    fn drained(queue: &Queue<u32>) -> Vec<u32> {
        queue.close();
        std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect()
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
    fn what_is_put_back_is_its_caller_s_next() {
        let queue = Queue::new(2);
        assert!(taken(&queue, 1, 10) && taken(&queue, 1, 11));
        let (caller, item) = queue.pop().expect("one");
        queue.put_back(caller, item);
        assert_eq!(drained(&queue), [10, 11]);
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_wakes_those_who_wait() {
        let queue = Queue::<u32>::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.pop());
            let resting = scope.spawn(|| queue.rest(Duration::from_secs(60)));
            queue.close();
            assert!(waiting.join().expect("no panic").is_none());
            resting.join().expect("no panic");
        });
        assert!(matches!(queue.push(1, 1), Pushed::Closed(1)));
        queue.rest(Duration::from_secs(60));
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
                    went.extend(queue.pop());
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
            went.extend(std::iter::from_fn(|| queue.pop()));
            for caller in 0..4 {
                let own = |all: &[(u64, u32)]| -> Vec<u32> {
                    all.iter().filter(|(who, _)| *who == caller).map(|(_, item)| *item).collect()
                };
                prop_assert_eq!(own(&went), own(&came));
            }
        }
    }
}
