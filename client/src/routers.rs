//! The routers of a profile: one channel each, one in use, and the next when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::certificates::CertificateFault;
use crate::error::ClientError;
use crate::net::{self, Identity, TrustRoots};
use crate::profile::RouterEndpoint;
use crate::sockets::Sockets;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

pub(crate) struct Routers {
    all: Vec<(RouterEndpoint, Channel)>,
    /// Counts up; modulo the number of routers it is the one in use.
    turn: AtomicUsize,
}

impl Routers {
    pub(crate) fn new(
        endpoints: &[RouterEndpoint],
        identity: &Identity,
        roots: &TrustRoots,
        sockets: Option<&Arc<dyn Sockets>>,
    ) -> Result<Self, ClientError> {
        let all = endpoints
            .iter()
            .map(|router| {
                let (addr, name) = (&router.addr, &router.server_name);
                let channel = match sockets {
                    Some(sockets) => net::connect_over(addr, identity, roots, name, sockets)?,
                    None => net::connect(addr, identity, roots, name)?,
                };
                Ok((router.clone(), channel))
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        if all.is_empty() {
            return Err(ClientError::Unreachable { last: "the profile lists no router".to_owned() });
        }
        Ok(Self { all, turn: AtomicUsize::new(0) })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The router in use and the turn it has been chosen in.
    pub(crate) fn current(&self) -> (usize, &RouterEndpoint, Channel) {
        let turn = self.turn.load(Ordering::Relaxed);
        let (endpoint, channel) = &self.all[turn % self.all.len()];
        (turn, endpoint, channel.clone())
    }

    /// Moves on from the router chosen in `turn`, unless somebody else did already.
    pub(crate) fn lost(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        let _ = self.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Who is left when a router has refused because of whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Routers that have not been asked.
    Others,
    /// Routers that have not answered: the one that has refused before was asked again.
    Unreachable,
    /// Nobody: every router has refused.
    Nobody,
}

impl Routers {
    /// Which router of the profile it is that was chosen in `turn`.
    pub(crate) fn place(&self, turn: usize) -> usize {
        turn % self.all.len()
    }

    /// Notes that the router chosen in `turn` has refused, and moves on from it. One that cannot be reached has
    /// refused nothing.
    pub(crate) fn refused(&self, turn: usize, refusing: &mut Vec<usize>) -> Left {
        let place = self.place(turn);
        let known = refusing.contains(&place);
        if !known {
            refusing.push(place);
        }
        if refusing.len() == self.all.len() {
            return Left::Nobody;
        }
        self.lost(turn);
        if known { Left::Unreachable } else { Left::Others }
    }
}

/// Delays between attempts: they start again from the first after success.
pub(crate) struct Backoff {
    next: Duration,
    until: Instant,
}

impl Backoff {
    pub(crate) fn new(within: Duration) -> Self {
        Self { next: BACKOFF_FIRST, until: Instant::now() + within }
    }

    /// The next delay, at least `least`; `None` when there is no time for another attempt.
    pub(crate) fn delay(&mut self, least: Duration) -> Option<Duration> {
        let delay = self.next.max(least);
        self.next = (self.next * 2).min(BACKOFF_MAX);
        (Instant::now() + delay < self.until).then_some(delay)
    }

    /// How much time is left.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Whether another router may answer where this one did not.
pub(crate) fn connection_lost(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Aborted
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

/// What a status means to a caller.
pub(crate) fn error_of(status: &Status) -> ClientError {
    if let Some(fault) = CertificateFault::of(status) {
        return ClientError::Certificate(fault);
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => ClientError::Denied(status.message().to_owned()),
        _ if connection_lost(status) => ClientError::Unreachable { last: cause_of(status) },
        _ => ClientError::Protocol(format!("{:?}: {}", status.code(), status.message())),
    }
}

/// The innermost cause: the outer texts of a transport error only say that there was one.
pub(crate) fn cause_of(status: &Status) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
