//! A task that wakes itself while it runs is run again at once.
//!
//! hyper does that for every request with a body: one half of a connection tells the other, both in
//! one task, that it wants the body. The reactor takes such a task for a new one and wakes another
//! thread to share the work, which costs more than all the rest of a request: here it is polled once
//! more instead, without the reactor's knowing.

use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls in a row: what goes on waking itself lets others have their turn after that.
const POLLS: usize = 4;

/// Nobody has been woken since the last poll.
const IDLE: u8 = 0;
/// It is being polled.
const POLLED: u8 = 1;
/// It was woken: the task is on its way, or the one who polls will poll again.
const RUNG: u8 = 2;

/// Runs a future to its end.
pub(super) async fn settled<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let bell = Arc::new(Bell { state: AtomicU8::new(IDLE), task: Mutex::new(None) });
    let waker = Waker::from(Arc::clone(&bell));
    std::future::poll_fn(|outer| bell.poll(future.as_mut(), &waker, outer)).await
}

/// What wakes the future; it wakes the task only if that is not at work on it.
struct Bell {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    fn poll<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        waker: &Waker,
        outer: &Context<'_>,
    ) -> Poll<F::Output> {
        self.belongs_to(outer.waker());
        for _ in 0..POLLS {
            self.state.store(POLLED, Ordering::Release);
            let polled = future.as_mut().poll(&mut Context::from_waker(waker));
            let quiet =
                self.state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if polled.is_ready() || quiet.is_ok() {
                return polled;
            }
        }
        outer.waker().wake_by_ref();
        Poll::Pending
    }

    fn belongs_to(&self, task: &Waker) {
        let mut known = self.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == IDLE {
            let task = self.task.lock().clone();
            if let Some(task) = task {
                task.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// Counts how often the task was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::<Count>::default();
        (Arc::clone(&count), Waker::from(count))
    }

    /// Wakes itself as often, then is done.
    fn restless(times: usize) -> impl Future<Output = usize> {
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            if polls > times {
                return Poll::Ready(polls);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn what_wakes_itself_is_polled_again_unseen() {
        let (count, waker) = counted();
        let restless = pin!(restless(POLLS - 1));
        let mut work = pin!(settled(restless));
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(POLLS));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn what_goes_on_waking_itself_lets_others_have_their_turn() {
        let (count, waker) = counted();
        let restless = pin!(restless(POLLS));
        let mut work = pin!(settled(restless));
        assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn the_task_that_polled_last_is_woken_once() {
        let (first, second) = (counted(), counted());
        let (tell, told) = tokio::sync::oneshot::channel();
        let told = pin!(told);
        let mut work = pin!(settled(told));
        assert!(work.as_mut().poll(&mut Context::from_waker(&first.1)).is_pending());
        assert!(work.as_mut().poll(&mut Context::from_waker(&second.1)).is_pending());
        tell.send(7).expect("heard");
        assert_eq!(first.0.0.load(Ordering::SeqCst), 0);
        assert_eq!(second.0.0.load(Ordering::SeqCst), 1);
        assert!(work.as_mut().poll(&mut Context::from_waker(&second.1)).is_ready());
    }

    /// However wakes and polls fall together, none is lost: else this would never end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wake_is_lost() {
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let sender = tokio::spawn(async move {
            for n in 0..50_000_u32 {
                tell.send(n).await.expect("heard");
            }
        });
        let counting = async move {
            let count = pin!(async {
                let mut count = 0;
                while told.recv().await.is_some() {
                    count += 1;
                }
                count
            });
            settled(count).await
        };
        let counted = tokio::time::timeout(Duration::from_secs(60), tokio::spawn(counting)).await;
        assert_eq!(counted.expect("in time").expect("no panic"), 50_000);
        sender.await.expect("no panic");
    }
}
