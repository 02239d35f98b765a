//! Law 1: every call that is let in ends once, and a request that is not let in is handed back.

mod common;

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use common::*;
use swiftwater_batch::{Batcher, CallError, Missing, Reason, Reply};

#[tokio::test]
async fn everybody_gets_his_own_answer() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let calls: Vec<_> = (1..=5).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(hold.held(), [[1, 2, 3, 4, 5]]);
    hold.answer().await;
    for (id, call) in (1..=5).zip(calls) {
        assert_eq!(ready(call), Ok(id * 10));
    }
}

#[tokio::test]
async fn a_request_is_on_its_way_before_its_call_is_polled() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let call = lookups.call(7);
    settle().await;
    hold.answer().await;
    assert_eq!(ready(call), Ok(70));
}

#[tokio::test]
async fn what_comes_while_a_batch_runs_forms_the_next_one() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let first = lookups.call(1);
    settle().await;
    let rest: Vec<_> = (2..=4).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(hold.held(), [[1]], "one at a time");
    hold.answer().await;
    assert_eq!(ready(first), Ok(10));
    assert_eq!(hold.held(), [[2, 3, 4]]);
    hold.answer().await;
    assert_eq!(rest.into_iter().map(ready).collect::<Vec<_>>(), [Ok(20), Ok(30), Ok(40)]);
}

#[tokio::test]
async fn a_refused_request_is_handed_back_with_the_reason() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_queued(1).build().unwrap();
    let waiting = lookups.call(1);
    let refused = lookups.try_call(2).unwrap_err();
    assert_eq!(refused.request, 2);
    assert!(matches!(refused.reason, Reason::Full { queued: 1, .. }), "{refused:?}");
    assert_eq!(refused.to_string(), "refused: the queue is full (1 waiting)");
    let lost = ready(lookups.call(3)).unwrap_err();
    assert!(matches!(lost, CallError::Refused(Reason::Full { .. })));
    settle().await;
    assert_eq!(hold.held(), [[1]]);
    hold.answer().await;
    assert_eq!(ready(waiting), Ok(10));
}

#[tokio::test]
async fn errors_are_each_callers_own() {
    let halves = Batcher::builder(|numbers: Vec<u32>| async move {
        let half = |n: u32| if n.is_multiple_of(2) { Ok(n / 2) } else { Err(format!("{n} is odd")) };
        numbers.into_iter().map(half).collect::<Vec<_>>()
    })
    .build()
    .unwrap();
    let (even, odd) = (halves.call(4), halves.call(5));
    assert_eq!(even.await, Ok(2));
    assert_eq!(odd.await, Err(CallError::Handler("5 is odd".into())));
}

#[tokio::test]
async fn an_error_for_all_is_shared() {
    let broken =
        Batcher::builder(|_: Vec<u32>| async { Err::<Vec<u32>, _>(std::fmt::Error) }).build().unwrap();
    let (one, two) = (broken.call(1), broken.call(2));
    let (Err(CallError::Handler(one)), Err(CallError::Handler(two))) = (one.await, two.await) else {
        panic!("both fail")
    };
    assert!(Arc::ptr_eq(&one, &two));
}

#[tokio::test]
async fn a_map_gives_each_key_its_value_and_says_which_is_missing() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let lengths =
        Batcher::builder(move |words: Vec<&'static str>| {
            log.lock().unwrap().push(words.clone());
            async move {
                words.into_iter().filter(|w| !w.is_empty()).map(|w| (w, w.len())).collect::<HashMap<_, _>>()
            }
        })
        .build()
        .unwrap();
    let calls: Vec<_> = ["one", "", "three", "one", "one", ""].map(|word| lengths.call(word)).into();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    let missing = Err(CallError::Handler(Missing));
    assert_eq!(answers, [Ok(3), missing, Ok(5), Ok(3), Ok(3), missing]);
    assert_eq!(*seen.lock().unwrap(), [["one", "", "three"]], "each distinct key once");
}

#[tokio::test]
async fn a_wrong_number_of_results_is_nobodys_answer() {
    for got in [0, 1, 3] {
        let results = move |_: Vec<u32>| async move { vec![Ok::<_, Infallible>(1); got] };
        let each = Batcher::builder(results).build().unwrap();
        let outputs = move |_: Vec<u32>| async move { Ok::<_, Infallible>(vec![1; got]) };
        let all = Batcher::builder(outputs).build().unwrap();
        for error in [each.call(1), each.call(2)].map(async |call| call.await.unwrap_err()) {
            assert!(matches!(error.await, CallError::WrongCount { expected: 2, got: g, .. } if g == got));
        }
        for error in [all.call(1), all.call(2)].map(async |call| call.await.unwrap_err()) {
            assert!(matches!(error.await, CallError::WrongCount { expected: 2, got: g, .. } if g == got));
        }
    }
}

#[tokio::test]
async fn replies_may_be_sent_one_by_one_and_from_elsewhere() {
    struct Later(tokio::sync::mpsc::UnboundedSender<(u32, Reply<u32, Infallible>)>);
    impl swiftwater_batch::Handler for Later {
        type Request = u32;
        type Output = u32;
        type Error = Infallible;
        async fn run(&self, batch: swiftwater_batch::Batch<Self>) {
            for item in batch.seal() {
                self.0.send((item.request, item.reply)).unwrap();
            }
        }
    }
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let later = Batcher::builder(Later(sender)).build().unwrap();
    let (mut one, mut two) = (later.call(1), later.call(2));
    settle().await;
    pending(&mut one);
    pending(&mut two);
    let replies = [receiver.recv().await.unwrap(), receiver.recv().await.unwrap()];
    let [(1, first), (2, second)] = replies else { panic!("in order") };
    second.send(Ok(22));
    assert_eq!(ready(two), Ok(22));
    pending(&mut one);
    drop(first);
    assert_eq!(ready(one), Err(CallError::NoReply));
}
