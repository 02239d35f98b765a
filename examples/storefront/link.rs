//! A client's line to the service: loopback, slowed down to a rate, since no customer sits inside the service.
//!
//! It carries so many bytes a second towards the client, and nothing else of a network: no delay of its own, no loss, and
//! what the client sends is not held up.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{self, Instant, Sleep},
};

pub struct Link {
    stream: TcpStream,
    bytes_per_second: Option<f64>,
    buffer: Box<[u8]>,
    /// What of the buffer is still under way, or has arrived and not been taken.
    carried: Range<usize>,
    /// When that will have arrived, and the line is free again.
    free: Pin<Box<Sleep>>,
}

impl Link {
    /// Without a rate it is as fast as it goes.
    pub fn new(stream: TcpStream, bytes_per_second: Option<f64>) -> Self {
        let buffer = vec![0; if bytes_per_second.is_some() { BUFFER } else { 0 }].into();
        Self { stream, bytes_per_second, buffer, carried: 0..0, free: Box::pin(time::sleep(Duration::ZERO)) }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &mut *self;
        let Some(rate) = link.bytes_per_second else {
            return Pin::new(&mut link.stream).poll_read(cx, buf);
        };
        if link.carried.is_empty() {
            let mut read = ReadBuf::new(&mut link.buffer);
            ready!(Pin::new(&mut link.stream).poll_read(cx, &mut read))?;
            link.carried = 0..read.filled().len();
            let free = free_again(Instant::now(), link.free.deadline(), link.carried.len(), rate);
            link.free.as_mut().reset(free);
        }
        ready!(link.free.as_mut().poll(cx));
        let arrived = link.carried.len().min(buf.remaining());
        buf.put_slice(&link.buffer[link.carried.start..][..arrived]);
        link.carried.start += arrived;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// When the line is free again that was free from `free` on and carries `bytes` which were read `now`.
///
/// A timer wakes up a little late: the line was not idle then, the bytes were waiting for it.
fn free_again(now: Instant, free: Instant, bytes: usize, bytes_per_second: f64) -> Instant {
    let begins = if now < free + LATE { free } else { now };
    begins + Duration::from_secs_f64(bytes as f64 / bytes_per_second)
}

const BUFFER: usize = 64 * 1024;
/// How late a timer may be: tokio's tick, and the time until the task has its turn.
const LATE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 1e6;

    fn after(from: Instant, milliseconds: u64) -> Instant {
        from + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_idle_line_takes_as_long_as_its_rate_says() {
        let free = Instant::now();
        let now = after(free, 500);
        assert_eq!(free_again(now, free, 50_000, RATE), after(now, 50));
    }

    #[test]
    fn a_busy_line_loses_no_time_to_late_timers() {
        let mut free = Instant::now();
        let begun = free;
        for _ in 0..10 {
            let woken = after(free, 1);
            free = free_again(woken, free, 50_000, RATE);
        }
        assert_eq!(free, after(begun, 500));
    }
}
