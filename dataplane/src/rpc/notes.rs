//! Notes of a control plane.

use super::{State, lock, peer};
use crate::notes::{Note, NoteError};
use std::sync::{Arc, PoisonError};
use strait_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What a reader reads.
pub(super) type Stream = ReceiverStream<Result<v1::Note, Status>>;

pub(super) async fn keep(
    state: Arc<State>,
    request: v1::KeepNoteRequest,
) -> Result<v1::KeepNoteResponse, Status> {
    let v1::Note { scope_id, peer_id, content } = request.note.unwrap_or_default();
    let (note, kept) = match state.notes.take(content) {
        Ok(note) => (note, Ok(v1::KeepNoteResponse {})),
        Err(error @ NoteError::TooLong(_)) => {
            return Err(Status::invalid_argument(error.to_string()));
        }
        // One of before would be worse than none.
        Err(error @ NoteError::NoRoom) => {
            (Note::default(), Err(Status::resource_exhausted(error.to_string())))
        }
    };
    if scope_id.is_empty() {
        if !peer_id.is_empty() {
            return Err(Status::invalid_argument("peer_id: without scope_id: name the scope too"));
        }
        *state.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
        return kept;
    }
    let scope = state.scope(&scope_id)?;
    let mut contents = lock(&scope).await?;
    if peer_id.is_empty() {
        contents.note = note;
    } else {
        peer(&contents, &peer_id)?;
        if let Some(peer) = contents.peers.get_mut(&peer_id) {
            peer.note = note;
        }
    }
    kept
}

/// Tells all notes.
pub(super) fn list(state: Arc<State>) -> Stream {
    let (reader, stream) = mpsc::channel(1);
    // A reader that goes away is missed by nobody.
    tokio::spawn(async move { drop(tell(&state, &reader).await) });
    ReceiverStream::new(stream)
}

async fn tell(
    state: &State,
    reader: &mpsc::Sender<Result<v1::Note, Status>>,
) -> Result<(), mpsc::error::SendError<Result<v1::Note, Status>>> {
    let note = |scope: &str, peer: &str, content: &[u8]| v1::Note {
        scope_id: scope.to_owned(),
        peer_id: peer.to_owned(),
        content: content.to_vec(),
    };
    let own = {
        let own = state.note.lock().unwrap_or_else(PoisonError::into_inner);
        note("", "", own.content())
    };
    let mut told = vec![own];
    let scopes = state.registry.scopes();
    let mut scopes = scopes.iter();
    loop {
        for note in told.drain(..).filter(|note| !note.content.is_empty()) {
            reader.send(Ok(note)).await?;
        }
        let Some(scope) = scopes.next() else { return Ok(()) };
        let Ok(contents) = lock(scope).await else { continue };
        told.push(note(&scope.name, "", contents.note.content()));
        let peers = contents.peers.iter();
        told.extend(peers.map(|(name, peer)| note(&scope.name, name, peer.note.content())));
    }
}
