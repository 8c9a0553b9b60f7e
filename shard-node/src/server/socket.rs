//! Servers, and accepted connections that are counted and that end with them. Streams of callers stay
//! open for as long as both sides live; a server that waited for them would never stop, and in a
//! process that goes on, they would keep talking to a node that has stopped.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use client::net::HANDSHAKE_TIMEOUT;
use client::sockets::{Accepted, Listener, Wire};
use client::{Counted, Traffic};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use ledger::limits::HANDSHAKES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::{Connected, Router, TcpConnectInfo};

use crate::server::crowd::{Crowd, Place};
use crate::server::doorkeeper::{Entrance, Pass};

/// How long open calls may go on once a server is asked to stop.
const GRACE: Duration = Duration::from_millis(100);

/// Serves those whom `entrance` lets in, until `stop`; callers then have a moment to read their last answers,
/// and connections that are still open are cut. What goes through them is counted.
///
/// # Errors
/// When the server cannot go on by itself.
pub async fn serve(
    server: Router,
    listener: Box<dyn Listener>,
    entrance: Arc<Entrance>,
    stop: impl Future<Output = ()>,
    traffic: Arc<Traffic>,
) -> Result<(), tonic::transport::Error> {
    let (cut, stopping) = (CancellationToken::new(), CancellationToken::new());
    let _cut_at_end = cut.clone().drop_guard();
    let callers = accepted(listener, cut, traffic);
    // Each is a task of its own: the checks of one caller do not hold up the others'.
    let handshakes = callers.map(move |caller| {
        let shaking = AbortOnDropHandle::new(tokio::spawn(shake_hands(Arc::clone(&entrance), caller)));
        async move { shaking.await.unwrap_or(Ok(None)) }.boxed()
    });
    let incoming =
        handshakes.buffer_unordered(HANDSHAKES_MAX).filter_map(|shaken| std::future::ready(shaken.transpose()));
    let serving = server.serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
    let grace = async {
        stop.await;
        stopping.cancel();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = serving => result,
        () = grace => Ok(()),
    }
}

/// The connections that come in, but for those of sources that have too many already.
fn accepted(
    listener: Box<dyn Listener>,
    cut: CancellationToken,
    traffic: Arc<Traffic>,
) -> BoxStream<'static, io::Result<(Socket, Place)>> {
    let callers = futures::stream::unfold(listener, |open| async move { Some((open.accept().await, open)) });
    let crowd = Crowd::default();
    let placed = callers.try_filter_map(move |accepted: Accepted| {
        let place = crowd.join(accepted.remote);
        if place.is_none() {
            tracing::debug!(caller = ?accepted.remote, "too many callers from there have not shaken hands");
        }
        std::future::ready(Ok::<_, io::Error>(place.map(|place| (Socket::new(accepted, &cut, &traffic), place))))
    });
    placed.boxed()
}

/// The TLS of one connection; `None` when it comes to nothing, which concerns its caller alone.
async fn shake_hands(
    entrance: Arc<Entrance>,
    caller: io::Result<(Socket, Place)>,
) -> io::Result<Option<TlsStream<Socket>>> {
    let (socket, _place) = caller?;
    let (config, cut) = (entrance.config(), socket.cut.clone());
    let accepted = TlsAcceptor::from(Arc::clone(&config)).accept(socket);
    let mut stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a caller was not let in");
            return Ok(None);
        }
        Err(_) => {
            tracing::debug!("a caller did not end its handshake in time");
            return Ok(None);
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let Some(pass) = entrance.admit(&config, certificates, cut) else {
        tracing::debug!("a caller is not let in any more");
        return Ok(None);
    };
    stream.get_mut().0.pass = Some(pass);
    Ok(Some(stream))
}

/// A connection that breaks off once its token, or that of its server, is cancelled.
pub struct Socket {
    stream: Counted<Box<dyn Wire>>,
    info: TcpConnectInfo,
    cut: CancellationToken,
    cutting: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Once its caller was let in.
    pass: Option<Pass>,
}

impl Socket {
    /// Takes over an accepted connection until `server` ends, and counts what goes through it.
    #[must_use]
    pub fn new(accepted: Accepted, server: &CancellationToken, traffic: &Arc<Traffic>) -> Self {
        let Accepted { wire, local, remote } = accepted;
        let info = TcpConnectInfo { local_addr: local, remote_addr: remote };
        let stream = Counted::new(wire, Arc::clone(traffic));
        let cut = server.child_token();
        let cutting = Box::pin(cut.clone().cancelled_owned());
        Self { stream, info, cut, cutting, pass: None }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cutting.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut")),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Socket {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;

    use futures::future::BoxFuture;
    use ledger::limits::HANDSHAKES_PER_SOURCE_MAX;
    use parking_lot::Mutex;

    use super::*;

    /// A port at which these call, one after the other, and then nobody.
    struct Port(Mutex<VecDeque<SocketAddr>>);

    impl Listener for Port {
        fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
            let next = self.0.lock().pop_front();
            Box::pin(async move {
                let Some(remote) = next else { return std::future::pending().await };
                let (wire, _) = tokio::io::duplex(1);
                Ok(Accepted { wire: Box::new(wire), local: None, remote: Some(remote) })
            })
        }
    }

    #[tokio::test]
    async fn one_source_does_not_take_the_turns_of_the_others() {
        let (silent, other) = (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1)));
        let mut calls: VecDeque<SocketAddr> = std::iter::repeat_n(silent, 2 * HANDSHAKES_PER_SOURCE_MAX).collect();
        calls.extend([other, silent]);
        let mut callers =
            accepted(Box::new(Port(Mutex::new(calls))), CancellationToken::new(), Arc::new(Traffic::default()));
        let mut shaking = Vec::new();
        for _ in 0..HANDSHAKES_PER_SOURCE_MAX {
            let (socket, place) = callers.next().await.unwrap().unwrap();
            assert_eq!(socket.info.remote_addr, Some(silent));
            shaking.push(place);
        }
        // As many again have been hung up on.
        let (socket, _place) = callers.next().await.unwrap().unwrap();
        assert_eq!(socket.info.remote_addr, Some(other));
        // One has ended, well or not.
        shaking.pop();
        let (socket, _) = callers.next().await.unwrap().unwrap();
        assert_eq!(socket.info.remote_addr, Some(silent));
    }
}
