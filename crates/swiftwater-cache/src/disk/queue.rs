//! What waits for the writer: operations in batches, told apart by tickets, and served from here until they are on disk.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{error::DiskError, index::TICKETS, log::BATCH};
use crate::layer::LayerKey;

#[derive(Default)]
pub(super) struct Queue {
    /// Oldest first; the last one takes what comes.
    batches: VecDeque<Batch>,
    /// What the writer has.
    writing: Option<Arc<Batch>>,
    /// Of the next operation.
    ticket: u64,
    /// The writer waits for work.
    pub(super) idle: bool,
    /// Nothing more is taken in.
    pub(super) closing: bool,
}

pub(super) struct Batch {
    /// The ticket of its first operation; the others follow.
    first: u64,
    ops: Vec<Op>,
    /// Who waits for its removals, in their order.
    removals: Vec<Done>,
    /// What it takes of the queue's bytes.
    pub(super) weight: usize,
}

pub(super) struct Op {
    pub(super) hash: u64,
    /// `None`: removed.
    pub(super) item: Option<Item>,
}

/// What a `put` was given.
pub(super) struct Item {
    pub(super) key: LayerKey,
    pub(super) value: Bytes,
}

/// Who waits for an operation.
pub(super) type Done = oneshot::Sender<Result<(), DiskError>>;

impl Queue {
    /// Takes the operation in; its ticket.
    pub(super) fn push(&mut self, op: Op, done: Option<Done>, weight: u32) -> u64 {
        let ticket = self.ticket;
        self.ticket += 1;
        if self.batches.back().is_none_or(|last| last.weight >= BATCH) {
            let batch = Batch { first: ticket, ops: Vec::new(), removals: Vec::new(), weight: 0 };
            self.batches.push_back(batch);
        }
        if let Some(last) = self.batches.back_mut() {
            last.ops.push(op);
            last.removals.extend(done);
            last.weight += weight as usize;
        }
        ticket
    }

    /// The oldest batch, and who waits for its removals. It is served until [`written`](Self::written).
    pub(super) fn take(&mut self) -> Option<(Arc<Batch>, Vec<Done>)> {
        let mut batch = self.batches.pop_front()?;
        let removals = mem::take(&mut batch.removals);
        let batch = Arc::new(batch);
        self.writing = Some(batch.clone());
        Some((batch, removals))
    }

    /// The index knows what has become of all that was taken.
    pub(super) fn written(&mut self) {
        self.writing = None;
    }

    /// All of it; who waits for a removal learns by its drop.
    pub(super) fn give_up(&mut self) -> impl Sized + use<> {
        (mem::take(&mut self.batches), self.writing.take())
    }

    /// What the operation with this ticket has put under the key, if it has.
    pub(super) fn value(&self, ticket: u64, key: &LayerKey) -> Option<Bytes> {
        let mut batches = self.writing.as_deref().into_iter().chain(&self.batches);
        let item = batches.find_map(|batch| batch.get(ticket))?.item.as_ref();
        item.filter(|item| item.key == *key).map(|item| item.value.clone())
    }
}

impl Batch {
    /// With their tickets.
    pub(super) fn ops(&self) -> impl Iterator<Item = (u64, &Op)> {
        (self.first..).zip(&self.ops)
    }

    fn get(&self, ticket: u64) -> Option<&Op> {
        // The index keeps the low bits only.
        self.ops.get((ticket.wrapping_sub(self.first) & TICKETS) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_told_apart_where_their_low_bits_start_again() {
        let mut queue = Queue { ticket: TICKETS - 1, ..Queue::default() };
        let key = LayerKey::new("region", Bytes::from_static(b"key"));
        let put =
            |value| Op { hash: 1, item: Some(Item { key: key.clone(), value: Bytes::from_static(value) }) };
        let first = [b"a", b"b", b"c"].map(|value| queue.push(put(value), None, 1));
        let taken = queue.take().unwrap();
        let then = [b"d", b"e"].map(|value| queue.push(put(value), None, 1));
        let values: Vec<_> =
            first.iter().chain(&then).map(|ticket| queue.value(ticket & TICKETS, &key).unwrap()).collect();
        assert_eq!(values, ["a", "b", "c", "d", "e"]);
        drop(taken);
        queue.written();
        assert_eq!(queue.value(first[2] & TICKETS, &key), None);
        assert_eq!(queue.value(then[0] & TICKETS, &key).unwrap(), "d");
    }
}
