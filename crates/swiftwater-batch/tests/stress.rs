//! Many threads, every way to end a call at once, and every call accounted for exactly once, on both sides.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use common::*;
use swiftwater_batch::{Batch, Batcher, CallError, Handler, Reason};

const CALLERS: u32 = 16;
const CALLS: u32 = 2_000;

/// How often each request came by. Some runs panic, some lose replies, some fail.
struct Shaky {
    seen: Arc<Vec<AtomicU32>>,
    answered: Arc<AtomicU64>,
}

impl Handler for Shaky {
    type Request = u32;
    type Output = u32;
    type Error = ();

    async fn run(&self, batch: Batch<Self>) {
        let items = batch.seal();
        let Some(first) = items.first().map(|item| item.request) else { return };
        tokio::task::yield_now().await;
        for item in &items {
            self.seen[item.request as usize].fetch_add(1, SeqCst);
            assert_eq!(item.request % 7, first % 7, "lanes mix");
        }
        for item in items {
            match item.request % 101 {
                0 => panic!("as told"),
                1 => drop(item.reply),
                2 => item.reply.send(Err(())),
                _ => {
                    self.answered.fetch_add(1, SeqCst);
                    item.reply.send(Ok(item.request));
                }
            }
        }
    }
}

#[derive(Default)]
struct Ends {
    ok: AtomicU64,
    handler: AtomicU64,
    lost: AtomicU64,
    panicked: AtomicU64,
    expired: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_ends_once() {
    let seen: Arc<Vec<_>> = Arc::new((0..CALLERS * CALLS).map(|_| AtomicU32::new(0)).collect());
    let answered = Arc::new(AtomicU64::new(0));
    let shaky = Shaky { seen: seen.clone(), answered: answered.clone() };
    let builder = Batcher::builder(shaky).max_items(5).in_flight(3).max_queued(200);
    let batcher = builder.group_by(|id| id % 7).build().unwrap();
    let ends = Arc::new(Ends::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (batcher, ends, seen) = (batcher.clone(), ends.clone(), seen.clone());
            tokio::runtime::Handle::current().spawn(async move {
                let mut calls = Vec::new();
                for id in caller * CALLS..(caller + 1) * CALLS {
                    let limit = match id % 13 {
                        0 => Some(Duration::from_micros(1)),
                        1 => Some(Duration::from_secs(3600)),
                        _ => None,
                    };
                    match batcher.with_deadline(limit).try_call(id) {
                        Err(refused) => {
                            assert_eq!(refused.request, id);
                            assert!(!matches!(refused.reason, Reason::NoRuntime));
                            ends.refused.fetch_add(1, SeqCst);
                            assert_eq!(seen[id as usize].load(SeqCst), 0, "refused and handled");
                        }
                        Ok(call) => calls.push((id, call)),
                    }
                    if id % 5 == 0 {
                        tokio::task::yield_now().await;
                    }
                    if id % 11 == 0
                        && let Some((_, mut call)) = calls.pop()
                    {
                        // Perhaps answered already, perhaps running, perhaps queued.
                        let _ = poll(&mut call).is_ready() || {
                            ends.cancelled.fetch_add(1, SeqCst);
                            true
                        };
                        continue;
                    }
                    if id % 17 == 0 {
                        batcher.set_enabled(id % 2 == 0);
                    }
                    if calls.len() > 20 {
                        for (id, call) in calls.drain(..) {
                            end(&ends, id, call.await);
                        }
                    }
                }
                for (id, call) in calls {
                    end(&ends, id, call.await);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let drained = batcher.drain(Duration::from_secs(60)).await;
    assert_eq!((drained.completed, drained.abandoned), (0, 0));
    for gauge in ["queued", "running", "lanes"] {
        assert_eq!(reading(&batcher, gauge), 0, "{gauge}");
    }
    assert!(seen.iter().all(|times| times.load(SeqCst) <= 1), "handled twice");
    assert!(ends.ok.load(SeqCst) > 0 && ends.lost.load(SeqCst) > 0 && ends.panicked.load(SeqCst) > 0);
    assert_eq!(ends.closed.load(SeqCst), 0);
    let ended = ["answered", "expired", "cancelled", "abandoned"].map(|name| reading(&batcher, name));
    assert_eq!(reading(&batcher, "calls"), ended.iter().sum());
    assert_eq!(reading(&batcher, "abandoned"), 0);
    let refused = ["refused_full", "refused_late"].map(|name| reading(&batcher, name));
    assert_eq!(refused.iter().sum::<u64>(), ends.refused.load(SeqCst));
    assert_eq!(reading(&batcher, "calls") + refused.iter().sum::<u64>(), u64::from(CALLERS * CALLS));
    // Answers that were sent and not received: their callers had left, or run out of time.
    assert!(ends.ok.load(SeqCst) <= answered.load(SeqCst));
}

fn end(ends: &Ends, id: u32, outcome: Result<u32, CallError<()>>) {
    let counter = match outcome {
        Ok(answer) => {
            assert_eq!(answer, id, "somebody else's answer");
            &ends.ok
        }
        Err(CallError::Closed) => &ends.closed,
        Err(CallError::Expired { .. }) => &ends.expired,
        Err(CallError::Handler(())) => &ends.handler,
        Err(CallError::HandlerPanicked) => &ends.panicked,
        Err(CallError::NoReply) => &ends.lost,
        Err(other) => panic!("{other:?}"),
    };
    counter.fetch_add(1, SeqCst);
}
