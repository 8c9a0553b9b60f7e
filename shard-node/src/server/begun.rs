//! Calls that others have begun at the port for nodes and have not ended, and the room that their messages take meanwhile.
//!
//! A message has room from its first five bytes on, which say how long it is, until it is whole; so whoever begins many and
//! ends none could take memory without sending anything worth it. Each caller has so much room and so many calls, whatever
//! number of connections it has, and what it begins beyond that is refused before a byte of it is kept. Then its own calls
//! wait for each other, and nobody else's do.
//!
//! Owns: who counts as one caller, and how much each has begun. Never does: look at what a message says, or decide what a
//! caller may do ([`super::service`] does both).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use client::net;
use hashbrown::HashMap;
use http_body::{Body, Frame, SizeHint};
use ledger::ids::{NodeId, OrgId};
use ledger::limits::{GRPC_BYTES_MAX, PEER_BEGUN_BYTES_MAX, PEER_BEGUN_CALLS_MAX};
use parking_lot::Mutex;
use router::gateway::ClusterView;
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;

/// Before each message of a stream: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// Who has begun something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A node that the registry names.
    Node(NodeId),
    /// Everybody else for whom an organisation vouches that the registry knows: its routers.
    Org(OrgId),
    /// All others together.
    Other,
}

impl Who {
    /// Who calls, by the certificates that it has shown.
    fn of(request: &tonic::Request<()>, view: &ClusterView) -> Self {
        let node = net::peer_key_hash(request)
            .and_then(|hash| view.nodes.values().find(|node| node.tls_key_hash == hash).map(|node| node.id));
        match node {
            Some(node) => Self::Node(node),
            None => net::peer_org(request, &view.orgs).map_or(Self::Other, Self::Org),
        }
    }
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BegunError {
    /// Its messages would take too much room.
    #[error(
        "the messages that this caller has begun and not ended would take more than {} bytes here: end some of them, and send this one again",
        PEER_BEGUN_BYTES_MAX
    )]
    Bytes,
    /// There are too many.
    #[error("this caller has {} calls open here: end some of them, and make this one again", PEER_BEGUN_CALLS_MAX)]
    Calls,
}

impl BegunError {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Bytes => "peer_begun_bytes",
            Self::Calls => "peer_begun_calls",
        }
    }

    fn status(self) -> Status {
        Status::resource_exhausted(format!("{}: {self}", self.code()))
    }
}

/// What one caller has begun.
#[derive(Default)]
struct Count {
    calls: usize,
    bytes: usize,
}

/// What all callers have begun. Clones are the same.
#[derive(Clone, Default)]
pub struct Begun(Arc<Mutex<HashMap<Who, Count>>>);

impl Begun {
    /// Counts a call.
    fn call(&self, who: Who) -> Result<Call, BegunError> {
        let mut callers = self.0.lock();
        let count = callers.entry(who).or_default();
        if count.calls >= PEER_BEGUN_CALLS_MAX {
            return Err(BegunError::Calls);
        }
        count.calls += 1;
        Ok(Call { begun: self.clone(), who, bytes: 0 })
    }
}

/// A call that counts until this is dropped, and the room of the message that it has begun.
struct Call {
    begun: Begun,
    who: Who,
    bytes: usize,
}

impl Call {
    /// The message that it has begun takes so much room; nothing once it is whole.
    fn takes(&mut self, bytes: usize) -> Result<(), BegunError> {
        let mut callers = self.begun.0.lock();
        let count = callers.entry(self.who).or_default();
        let others = count.bytes - self.bytes;
        if bytes > 0 && others + bytes > PEER_BEGUN_BYTES_MAX {
            return Err(BegunError::Bytes);
        }
        (count.bytes, self.bytes) = (others + bytes, bytes);
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut callers = self.begun.0.lock();
        if let Some(count) = callers.get_mut(&self.who) {
            count.calls -= 1;
            count.bytes -= self.bytes;
            if count.calls == 0 {
                callers.remove(&self.who);
            }
        }
    }
}

/// How far the messages of a call have come.
#[derive(Clone, Copy)]
enum At {
    /// Of the next one so many bytes of its prefix are there.
    Prefix([u8; PREFIX_BYTES], usize),
    /// So many bytes of this one are not.
    Message(usize),
}

/// What a caller sends in one call, followed as it comes. A call that is refused brings nothing but that.
pub struct Followed<B> {
    rest: Result<(B, Call), BegunError>,
    at: At,
}

impl<B> Followed<B> {
    fn new(body: B, call: Result<Call, BegunError>) -> Self {
        Self { rest: call.map(|call| (body, call)), at: At::Prefix([0; PREFIX_BYTES], 0) }
    }

    /// Takes note of bytes that have come.
    fn follow(call: &mut Call, mut at: At, mut data: &[u8]) -> Result<At, BegunError> {
        while !data.is_empty() {
            at = match at {
                At::Prefix(mut prefix, have) => {
                    let (now, behind) = data.split_at(data.len().min(PREFIX_BYTES - have));
                    prefix[have..have + now.len()].copy_from_slice(now);
                    data = behind;
                    match have + now.len() {
                        PREFIX_BYTES => {
                            let [_, length @ ..] = prefix;
                            let length = u32::from_be_bytes(length) as usize;
                            // One that is longer than any may be is refused by whoever reads it, who makes no room for it.
                            call.takes(if length > GRPC_BYTES_MAX { 0 } else { length })?;
                            if length == 0 { At::Prefix([0; PREFIX_BYTES], 0) } else { At::Message(length) }
                        }
                        have => At::Prefix(prefix, have),
                    }
                }
                At::Message(left) => {
                    let (now, behind) = data.split_at(data.len().min(left));
                    data = behind;
                    match left - now.len() {
                        0 => {
                            call.takes(0)?;
                            At::Prefix([0; PREFIX_BYTES], 0)
                        }
                        left => At::Message(left),
                    }
                }
            };
        }
        Ok(at)
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Followed<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let (body, call) = match &mut this.rest {
            Ok(rest) => (&mut rest.0, &mut rest.1),
            Err(refused) => return Poll::Ready(Some(Err(refused.status()))),
        };
        let polled = Pin::new(body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = &polled else { return polled };
        let Some(data) = frame.data_ref() else { return polled };
        match Self::follow(call, this.at, data) {
            Ok(at) => {
                this.at = at;
                polled
            }
            Err(refused) => {
                // What it has begun goes at once.
                this.rest = Err(refused);
                Poll::Ready(Some(Err(refused.status())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_ok_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map_or_else(|_| SizeHint::default(), |(body, _)| body.size_hint())
    }
}

/// A service whose callers' calls are counted as they begin. What is behind it finds [`Who`] calls among the extensions of
/// a request.
#[derive(Clone)]
pub struct Counting<S> {
    inner: S,
    begun: Begun,
    view: watch::Receiver<Arc<ClusterView>>,
}

impl<S> Counting<S> {
    /// Counts the calls of a service, by whom the registry names.
    #[must_use]
    pub fn new(inner: S, view: watch::Receiver<Arc<ClusterView>>) -> Self {
        Self { inner, begun: Begun::default(), view }
    }
}

impl<S> Service<http::Request<tonic::body::Body>> for Counting<S>
where
    S: Service<http::Request<Followed<tonic::body::Body>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let asking = tonic::Request::from_parts(MetadataMap::new(), request.extensions().clone(), ());
        let who = Who::of(&asking, &self.view.borrow());
        request.extensions_mut().insert(who);
        let call = self.begun.call(who).inspect_err(|refused| {
            tracing::warn!(?who, "a call was refused: {refused}");
        });
        self.inner.call(request.map(|body| Followed::new(body, call)))
    }
}

impl<S: NamedService> NamedService for Counting<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const CALLER: Who = Who::Node(NodeId(1));
    const LARGE: usize = GRPC_BYTES_MAX;

    /// What somebody sends piece by piece, and never ends.
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
            self.0.pop_front().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
        }
    }

    fn prefix(length: usize) -> Vec<u8> {
        [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat()
    }

    fn sends<const N: usize>(begun: &Begun, who: Who, pieces: [Vec<u8>; N]) -> Followed<Pieces> {
        Followed::new(Pieces(pieces.into_iter().map(Bytes::from).collect()), begun.call(who))
    }

    /// Reads as much as there is, or until the call is refused.
    fn read(body: &mut Followed<Pieces>) -> Result<usize, String> {
        let mut context = Context::from_waker(futures::task::noop_waker_ref());
        let mut read = 0;
        loop {
            match Pin::new(&mut *body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => read += frame.into_data().unwrap().len(),
                Poll::Ready(Some(Err(status))) => {
                    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                    return Err(status.message().split(':').next().unwrap().to_owned());
                }
                Poll::Ready(None) | Poll::Pending => return Ok(read),
            }
        }
    }

    fn bytes(begun: &Begun) -> usize {
        begun.0.lock().get(&CALLER).map_or(0, |count| count.bytes)
    }

    #[test]
    fn a_message_takes_room_from_its_prefix_on_until_it_is_whole() {
        let whole = [prefix(7), vec![1; 7], prefix(0), prefix(3), vec![2; 3]].concat();
        for cut in 1..=whole.len() {
            let (begun, pieces) = (Begun::default(), whole.chunks(cut).map(<[u8]>::to_vec));
            let mut body = Followed::new(Pieces(pieces.map(Bytes::from).collect()), begun.call(CALLER));
            assert_eq!(read(&mut body), Ok(whole.len()), "{cut}");
            assert_eq!(bytes(&begun), 0, "{cut}");
        }
        for (sent, expected) in [(4, 0), (5, 7), (11, 7), (12, 0), (17, 0), (21, 0), (22, 3), (24, 3), (25, 0)] {
            let begun = Begun::default();
            let mut body = sends(&begun, CALLER, [whole[..sent].to_vec()]);
            assert_eq!((read(&mut body), bytes(&begun)), (Ok(sent), expected), "{sent}");
            drop(body);
            assert!(begun.0.lock().is_empty(), "what is given up is given back");
        }
    }

    #[test]
    fn who_begins_large_messages_and_ends_none_is_refused_alone() {
        let begun = Begun::default();
        let most = PEER_BEGUN_BYTES_MAX / LARGE;
        let mut open: Vec<_> = (0..most).map(|_| sends(&begun, CALLER, [prefix(LARGE)])).collect();
        for body in &mut open {
            assert_eq!(read(body), Ok(PREFIX_BYTES));
        }
        assert_eq!(bytes(&begun), PEER_BEGUN_BYTES_MAX);
        let mut beyond = sends(&begun, CALLER, [prefix(1), vec![1]]);
        assert_eq!(read(&mut beyond), Err("peer_begun_bytes".to_owned()));
        assert_eq!(read(&mut beyond), Err("peer_begun_bytes".to_owned()), "nothing more is read of it");
        // Messages without content take no room.
        assert_eq!(read(&mut sends(&begun, CALLER, [prefix(0)])), Ok(PREFIX_BYTES));
        for who in [Who::Node(NodeId(2)), Who::Org(OrgId(1)), Who::Other] {
            assert_eq!(read(&mut sends(&begun, who, [prefix(LARGE)])), Ok(PREFIX_BYTES), "{who:?}");
        }
        open.pop();
        assert_eq!(read(&mut sends(&begun, CALLER, [prefix(LARGE)])), Ok(PREFIX_BYTES));
        // One that is too long for any message has no room made for it, and whoever reads it refuses it.
        assert_eq!(read(&mut sends(&begun, CALLER, [prefix(LARGE + 1)])), Ok(PREFIX_BYTES));
    }

    #[test]
    fn a_caller_has_so_many_calls_open() {
        let begun = Begun::default();
        let mut open: Vec<_> = (0..PEER_BEGUN_CALLS_MAX).map(|_| sends(&begun, CALLER, [])).collect();
        assert!(open.iter_mut().all(|body| read(body) == Ok(0)));
        assert_eq!(read(&mut sends(&begun, CALLER, [])), Err("peer_begun_calls".to_owned()));
        assert_eq!(read(&mut sends(&begun, Who::Other, [])), Ok(0));
        open.pop();
        assert_eq!(read(&mut sends(&begun, CALLER, [])), Ok(0));
    }
}
