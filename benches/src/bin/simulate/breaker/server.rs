//! A server: several workers before one queue, first come, first served. It knows nothing of its clients' time-outs: work
//! that nobody waits for any more is done like all other work.

use std::collections::VecDeque;

pub struct Server<J> {
    idle: usize,
    queue: VecDeque<J>,
    places: usize,
}

#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// The queue is full.
    Refused,
    /// A worker begins at once.
    Starts,
    Waits,
}

impl<J> Server<J> {
    pub fn new(workers: usize, places: usize) -> Self {
        Self { idle: workers, queue: VecDeque::new(), places }
    }

    pub fn arrive(&mut self, job: J) -> Arrival {
        if self.idle > 0 {
            self.idle -= 1;
            return Arrival::Starts;
        }
        if self.queue.len() >= self.places {
            return Arrival::Refused;
        }
        self.queue.push_back(job);
        Arrival::Waits
    }

    /// A worker has finished its job; the job that it begins now.
    pub fn finish(&mut self) -> Option<J> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.idle += 1;
        }
        next
    }

    /// The server has died: nothing waits any more.
    pub fn forget_queue(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::events::{Events, MILLISECOND, Nanos, SECOND, Time, exponential};

    /// The mean wait in a queue with Poisson arrivals and constant service.
    fn mean_wait(workers: usize, load: f64, service: Nanos) -> f64 {
        enum Event {
            Arrives,
            Served,
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut events = Events::new(Time::new());
        let mut server: Server<Nanos> = Server::new(workers, usize::MAX);
        let (mut waited, mut begun) = (0, 0);
        let gap = service as f64 / (load * workers as f64);
        events.plan(0, Event::Arrives);
        while let Some(event) = events.next(5_000 * SECOND) {
            match event {
                Event::Arrives => {
                    if server.arrive(events.now()) == Arrival::Starts {
                        begun += 1;
                        events.plan(service, Event::Served);
                    }
                    events.plan(exponential(&mut random, gap), Event::Arrives);
                }
                Event::Served => {
                    if let Some(arrived) = server.finish() {
                        begun += 1;
                        waited += events.now() - arrived;
                        events.plan(service, Event::Served);
                    }
                }
            }
        }
        waited as f64 / f64::from(begun)
    }

    #[test]
    fn one_worker_makes_callers_wait_as_the_formula_says() {
        // Pollaczek and Khinchine: load / (2 (1 - load)) services.
        let wait = mean_wait(1, 0.8, 10 * MILLISECOND) / (10 * MILLISECOND) as f64;
        assert!((1.9..2.1).contains(&wait), "{wait}");
    }

    #[test]
    fn many_workers_make_callers_wait_less() {
        // Erlang's formula says 0.669 services for exponential work; constant work waits about half as long.
        let wait = mean_wait(10, 0.9, 10 * MILLISECOND) / (10 * MILLISECOND) as f64;
        assert!((0.3..0.38).contains(&wait), "{wait}");
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut server = Server::new(1, 1);
        let arrivals: Vec<_> = (0..3).map(|job| server.arrive(job)).collect();
        assert_eq!(arrivals, [Arrival::Starts, Arrival::Waits, Arrival::Refused]);
        assert_eq!((server.finish(), server.finish()), (Some(1), None));
        assert_eq!(server.arrive(3), Arrival::Starts);
    }
}
