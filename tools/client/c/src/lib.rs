//! The C interface of strait-client. What each function does, and the rules of threads, are in include/strait.h.
//!
//! `unsafe` is here and nowhere else: what comes in as pointers becomes slices, and what goes out pointers, in this file;
//! all else is safe code of strait-client. A client is a number, looked up in a table: a wrong one is an error.

mod table;

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use strait_client::Frame;
use strait_client::core::media::Payload;
use strait_client::invoke::code::{Code, Failure};
use strait_client::invoke::{Told, refusal};
use strait_wire::ext::AudioLevel;

/// Of the interface: it grows by functions, methods, events and fields; what changes otherwise gets another number.
const INTERFACE: u32 = 1;
/// `level` where nothing is known.
const NO_LEVEL: i32 = -1;
/// The largest `level`: bit 7 says speech, the others how far below the loudest.
const LEVEL_MAX: i32 = 255;

/// `strait_media`.
#[repr(C)]
pub struct Media {
    subscription_id: *const c_char,
    payload: *const u8,
    payload_len: usize,
    ssrc: u32,
    timestamp: u32,
    seq: u16,
    payload_type: u8,
    marker: u8,
}

/// `strait_on_event`.
pub type OnEvent = unsafe extern "C" fn(*mut c_void, u64, *const c_char);
/// `strait_on_media`.
pub type OnMedia = unsafe extern "C" fn(*mut c_void, u64, *const Media);

struct Callbacks {
    client: u64,
    on_event: Option<OnEvent>,
    on_media: Option<OnMedia>,
    user_data: *mut c_void,
}

// SAFETY: `user_data` is passed on and never looked into; the header says that the callbacks are called with it on another
// thread. It is what makes callbacks of use to C at all.
unsafe impl Send for Callbacks {}

impl Callbacks {
    fn tell(&self, told: Told<'_>) {
        match told {
            Told::Event(text) => {
                // JSON holds no null.
                let (Some(on_event), Ok(text)) = (self.on_event, CString::new(text)) else {
                    return;
                };
                // SAFETY: the function is the application's, given for this; the text lives until it returns. There is no
                // other way to tell a C program anything on this thread.
                unsafe { on_event(self.user_data, self.client, text.as_ptr()) }
            }
            Told::Media(payload) => self.media(payload),
        }
    }

    fn media(&self, payload: &Payload) {
        let Some(on_media) = self.on_media else { return };
        let Ok(subscription) = CString::new(payload.subscription_id.as_str()) else { return };
        let media = Media {
            subscription_id: subscription.as_ptr(),
            payload: payload.payload.as_ptr(),
            payload_len: payload.payload.len(),
            ssrc: payload.ssrc,
            timestamp: payload.timestamp,
            seq: payload.seq,
            payload_type: payload.payload_type,
            marker: payload.marker.into(),
        };
        // SAFETY: as above; what `media` points to lives until the function returns. Pointers save a copy of each packet.
        unsafe { on_media(self.user_data, self.client, &raw const media) }
    }
}

/// No panic leaves the library: one that is a fault here becomes a code.
fn guarded(call: impl FnOnce() -> Code) -> i32 {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Code::Internal) as i32
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn strait_interface() -> u32 {
    INTERFACE
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn strait_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn strait_code_name(code: i32) -> *const c_char {
    table::code_name(code).as_ptr()
}

/// See the header.
///
/// # Safety
/// `client` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strait_create(
    on_event: Option<OnEvent>,
    on_media: Option<OnMedia>,
    user_data: *mut c_void,
    client: *mut u64,
) -> i32 {
    guarded(|| {
        if client.is_null() || on_event.is_none() {
            return Code::BadArgument;
        }
        let made = table::create(|client| {
            let callbacks = Callbacks { client, on_event, on_media, user_data };
            move |told: Told<'_>| callbacks.tell(told)
        });
        match made {
            // SAFETY: not null, and the caller's to be written to; the usual way to return a value beside a code.
            Ok(made) => unsafe {
                client.write(made);
                Code::Ok
            },
            Err(code) => code,
        }
    })
}

/// See the header.
///
/// # Safety
/// `request` is null or has `request_len` bytes; `answer` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strait_invoke(
    client: u64,
    request: *const c_char,
    request_len: usize,
    answer: *mut *mut c_char,
) -> i32 {
    // SAFETY: as this function's.
    let request = unsafe { bytes(request.cast(), request_len) };
    let mut text = String::new();
    let code = guarded(|| {
        let code;
        (code, text) = table::invoke(client, request);
        code
    });
    if code == Code::Internal as i32 {
        text = refusal(&Failure::new(Code::Internal, "a fault of this library: please report it"));
    }
    if !answer.is_null() {
        // JSON holds no null.
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: not null, and the caller's to be written to; an answer has no length that a caller could know before.
        unsafe { answer.write(text.into_raw()) }
    }
    code
}

/// See the header.
///
/// # Safety
/// `answer` is null or of `strait_invoke`, and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strait_free(answer: *mut c_char) {
    if !answer.is_null() {
        // SAFETY: `strait_invoke` made it by `into_raw`; memory goes back to the allocator that it came from.
        drop(unsafe { CString::from_raw(answer) });
    }
}

/// See the header.
///
/// # Safety
/// `payload` is null or has `payload_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strait_send(
    client: u64,
    publication: u32,
    encoding: u32,
    payload: *const u8,
    payload_len: usize,
    timestamp: u32,
    marker: i32,
    level: i32,
) -> i32 {
    // SAFETY: as this function's.
    let payload = unsafe { bytes(payload, payload_len) };
    guarded(|| {
        let Some(payload) = payload else { return Code::BadArgument };
        let level = match level {
            NO_LEVEL => None,
            0..=LEVEL_MAX => AudioLevel::parse(&[level as u8]),
            _ => return Code::BadArgument,
        };
        let frame = Frame { payload, timestamp, marker: marker != 0, level };
        table::send(client, publication, encoding, &frame)
    })
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn strait_destroy(client: u64) -> i32 {
    guarded(|| table::destroy(client))
}

/// None where there are none.
///
/// # Safety
/// `start` is null or has `len` bytes, which nobody changes while they are looked at.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> Option<&'a [u8]> {
    if start.is_null() || len > isize::MAX as usize {
        return None;
    }
    // SAFETY: not null, not longer than a slice may be, the rest as this function's. A copy would serve nobody.
    Some(unsafe { std::slice::from_raw_parts(start, len) })
}
