//! Where sockets come from: the operating system, or whoever stands in for its network.
//!
//! Nodes listen and call by [`Sockets`], and so do clients that are given one. Owns no policy: TLS, time
//! limits and who may connect are above it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection: bytes in order, both ways.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection that somebody opened to us.
pub struct Accepted {
    /// The connection.
    pub wire: Box<dyn Wire>,
    /// Our end, if it is known.
    pub local: Option<SocketAddr>,
    /// The caller's end, if it is known.
    pub remote: Option<SocketAddr>,
}

/// An open port.
pub trait Listener: Send + Sync {
    /// The next caller.
    ///
    /// # Errors
    /// What the system says; the port stays open.
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>>;
}

/// A network. Its futures run in a tokio runtime.
pub trait Sockets: Send + Sync {
    /// Opens a connection to a name or an address.
    ///
    /// # Errors
    /// What the system says.
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>>;

    /// Opens a port.
    ///
    /// # Errors
    /// What the system says.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// TCP of the operating system. Small messages do not wait for more to come.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSockets;

impl SystemSockets {
    /// Ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Sockets> {
        Arc::new(Self)
    }
}

impl Sockets for SystemSockets {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(addr).await?) as Box<dyn Listener>) })
    }
}

impl Listener for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, remote) = Self::accept(self).await?;
            // Without it the connection works all the same.
            let _ = stream.set_nodelay(true);
            let local = stream.local_addr().ok();
            Ok(Accepted { wire: Box::new(stream), local, remote: Some(remote) })
        })
    }
}
