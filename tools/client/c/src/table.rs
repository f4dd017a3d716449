//! The clients of this process by number. A number is given out once: one of a client that is gone finds nothing.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use strait_client::Frame;
use strait_client::invoke::code::{Code, Failure};
use strait_client::invoke::{Invoke, REQUEST_BYTES, Told, refusal};

/// Clients at a time: each that has connected has a thread and up to six open files, of which a process has some thousands.
const CLIENTS: usize = 1024;

#[derive(Default)]
struct Table {
    /// The last number that was given out; 0 is nobody's.
    last: u64,
    clients: HashMap<u64, Arc<Invoke>>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not held while the client is called: a callback may call the table.
fn client(client: u64) -> Option<Arc<Invoke>> {
    table().clients.get(&client).cloned()
}

/// A client whose listener knows its number.
pub(crate) fn create<L: FnMut(Told<'_>) + Send + 'static>(
    listener: impl FnOnce(u64) -> L,
) -> Result<u64, Code> {
    let mut table = table();
    if table.clients.len() >= CLIENTS {
        return Err(Code::TooMany);
    }
    table.last += 1;
    let number = table.last;
    table.clients.insert(number, Arc::new(Invoke::new(listener(number))));
    Ok(number)
}

/// The code of a request, and its answer.
pub(crate) fn invoke(number: u64, request: Option<&[u8]>) -> (Code, String) {
    match checked(number, request) {
        Ok((client, request)) => client.invoke(request),
        Err(failure) => (failure.number, refusal(&failure)),
    }
}

fn checked(number: u64, request: Option<&[u8]>) -> Result<(Arc<Invoke>, &str), Failure> {
    let client = client(number).ok_or_else(|| {
        Failure::new(Code::BadClient, format!("there is no client {number}: was it destroyed?"))
    })?;
    let request =
        request.ok_or_else(|| Failure::new(Code::BadArgument, "the request is a null pointer"))?;
    if request.len() > REQUEST_BYTES {
        let why = format!("a request of {} bytes, {REQUEST_BYTES} are taken", request.len());
        return Err(Failure::new(Code::TooLarge, why));
    }
    let request = std::str::from_utf8(request)
        .map_err(|error| Failure::new(Code::BadUtf8, format!("the request: {error}")))?;
    Ok((client, request))
}

pub(crate) fn send(number: u64, publication: u32, encoding: u32, frame: &Frame<'_>) -> Code {
    let Some(client) = client(number) else { return Code::BadClient };
    let encoding = usize::try_from(encoding).unwrap_or(usize::MAX);
    client.send(publication, encoding, frame).map_or_else(|failure| failure.number, |()| Code::Ok)
}

pub(crate) fn destroy(number: u64) -> Code {
    // Not in one expression: the table would be held while the client's thread is waited for.
    let client = table().clients.remove(&number);
    match client {
        Some(client) => {
            client.close();
            Code::Ok
        }
        None => Code::BadClient,
    }
}

/// The name of a code, for C.
pub(crate) fn code_name(code: i32) -> &'static CStr {
    static NAMES: LazyLock<Vec<(i32, std::ffi::CString)>> = LazyLock::new(|| {
        let named = Code::ALL.iter().map(|(code, _)| {
            (*code as i32, std::ffi::CString::new(code.name()).unwrap_or_default())
        });
        named.collect()
    });
    let found = NAMES.iter().find(|(number, _)| *number == code);
    found.map_or(c"UNKNOWN_CODE", |(_, name)| name)
}
