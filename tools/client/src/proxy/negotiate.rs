//! HTTP negotiate authentication (RFC 4559): SPNEGO (RFC 4178) with a ticket of Kerberos, which the system's library has.

use crate::error::Error;

/// Whether this is built with the system's library.
pub(crate) const IS_BUILT: bool = cfg!(feature = "negotiate");

/// A ticket for the proxy at `host`, as SPNEGO says it. That is all that the client says where Kerberos decides: who takes
/// it does not ask further. The node proves itself by TLS, so the proxy need not.
#[cfg(feature = "negotiate")]
pub(super) async fn ticket(host: &str) -> Result<Vec<u8>, Error> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let service = format!("HTTP@{host}");
    // The library asks the servers of the realm, and waits for them; nobody waits for it when the client is ended.
    let thread = std::thread::Builder::new().name("negotiate".into());
    let thread = thread.spawn(move || tell.send(take(service.as_bytes())));
    thread.map_err(|error| Error::ProxyTicket(error.to_string()))?;
    told.await.map_err(|_| Error::ProxyTicket("the library failed".into()))?
}

#[cfg(feature = "negotiate")]
fn take(service: &[u8]) -> Result<Vec<u8>, Error> {
    use libgssapi::context::{ClientCtx, CtxFlags};
    use libgssapi::name::Name;
    use libgssapi::oid::{GSS_MECH_SPNEGO, GSS_NT_HOSTBASED_SERVICE};
    let token = Name::new(service, Some(GSS_NT_HOSTBASED_SERVICE)).and_then(|name| {
        ClientCtx::new(None, name, CtxFlags::empty(), Some(GSS_MECH_SPNEGO)).step(None, None)
    });
    match token {
        Ok(Some(token)) => Ok(token.to_vec()),
        Ok(None) => Err(Error::ProxyTicket("the library has none to show".into())),
        Err(error) => Err(Error::ProxyTicket(error.to_string())),
    }
}

/// Nobody asks where this is not built.
#[cfg(not(feature = "negotiate"))]
pub(super) async fn ticket(_host: &str) -> Result<Vec<u8>, Error> {
    Err(Error::ProxyTicket("this is built without negotiate".into()))
}
