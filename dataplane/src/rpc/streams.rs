//! Publications and subscriptions.

use super::{
    State, lock, missing, of_mailbox, of_random, peer, publication, spread, subscription, taken,
    validate,
};
use crate::mailbox::MailboxError;
use crate::random;
use crate::registry::{Contents, Description, Publication, Subscription};
use std::collections::BTreeMap;
use std::sync::Arc;
use strait_core::command::{Command, CommandError, PublicationId, SubscriptionId};
use strait_proto::v1;
use tonic::Status;

pub(super) async fn publish(
    state: Arc<State>,
    request: v1::PublishRequest,
) -> Result<v1::PublishResponse, Status> {
    validate::id("publication_id", &request.publication_id)?;
    validate::mid(&request.mid)?;
    let kind = validate::kind(request.kind)?;
    let codecs = validate::codecs(request.codecs)?;
    let extensions = validate::extensions(&request.extensions)?;
    let encodings = validate::encodings(request.encodings)?;
    let scope = state.scope(&request.scope_id)?;
    let mut contents = lock(&scope).await?;
    let peer = peer(&contents, &request.peer_id)?.id;
    if contents.publications.contains_key(&request.publication_id) {
        return Err(taken("publication", &request.publication_id));
    }
    let id = PublicationId(state.registry.number());
    state.registry.note_publication(id, &scope);
    let description = Description { kind, codecs, extensions, encodings };
    let Description { codecs, encodings, .. } = description.clone();
    let command = Command::Publish {
        peer,
        publication: id,
        kind,
        mid: request.mid,
        codecs,
        extensions,
        encodings,
        muted: request.muted,
        report_ssrc: next_ssrc(&mut contents)?,
    };
    let worker = state.worker_of(&scope, &contents, &request.peer_id)?;
    if let Err(error) = worker.command(command).await {
        state.registry.forget_publication(id);
        return Err(of_mailbox(error));
    }
    let (peer, muted, mirrors) = (request.peer_id, request.muted, BTreeMap::new());
    let publication = Publication { id, peer, description, muted, mirrors, wanted: None };
    contents.publications.insert(request.publication_id, publication);
    Ok(v1::PublishResponse {})
}

pub(super) async fn unpublish(
    state: Arc<State>,
    request: v1::UnpublishRequest,
) -> Result<v1::UnpublishResponse, Status> {
    validate::id("scope_id", &request.scope_id)?;
    validate::id("publication_id", &request.publication_id)?;
    if let Some(scope) = state.registry.scope(&request.scope_id) {
        let mut contents = scope.state.lock().await;
        if let Some(entry) = contents.publications.get(&request.publication_id) {
            let command = Command::Unpublish { publication: entry.id };
            state.registry.forget_publication(entry.id);
            ended(state.worker_of(&scope, &contents, &entry.peer)?.command(command).await)?;
            contents.remove_publication(&request.publication_id);
            spread::end_mirrors(&state, &mut contents);
        }
    }
    Ok(v1::UnpublishResponse {})
}

pub(super) async fn set_muted(
    state: Arc<State>,
    request: v1::SetMutedRequest,
) -> Result<v1::SetMutedResponse, Status> {
    let scope = state.scope(&request.scope_id)?;
    let mut contents = lock(&scope).await?;
    let entry = publication(&contents, &request.publication_id)?;
    // Its own worker comes first: what that holds back goes nowhere.
    let origin = contents.worker_of(&entry.peer, scope.worker());
    let mirrors: Vec<usize> = entry.mirrors.keys().copied().collect();
    let (publication, muted) = (entry.id, request.muted);
    let command = || Command::SetMuted { publication, muted };
    state.numbered(origin)?.command(command()).await.map_err(of_mailbox)?;
    if let Some(entry) = contents.publications.get_mut(&request.publication_id) {
        entry.muted = muted;
    }
    // One that does not answer is no reason to leave those behind it as they were; the caller asks again.
    let mut told = Ok(());
    for worker in mirrors {
        let result = state.numbered(worker)?.command(command()).await;
        told = told.and(result.map_err(of_mailbox));
    }
    told.map(|()| v1::SetMutedResponse {})
}

pub(super) async fn subscribe(
    state: Arc<State>,
    request: v1::SubscribeRequest,
) -> Result<v1::SubscribeResponse, Status> {
    validate::id("subscription_id", &request.subscription_id)?;
    validate::mid(&request.mid)?;
    let kind = validate::kind(request.kind)?;
    let codecs = validate::codecs(request.codecs)?;
    let extensions = validate::extensions(&request.extensions)?;
    let source = validate::optional_id("publication_id", request.publication_id)?;
    let preferences = validate::preferences(request.preferences);
    let as_sent = request.as_sent;
    let scope = state.scope(&request.scope_id)?;
    let mut contents = lock(&scope).await?;
    let peer = peer(&contents, &request.peer_id)?.id;
    if contents.subscriptions.contains_key(&request.subscription_id) {
        return Err(taken("subscription", &request.subscription_id));
    }
    let bound = number_of(&contents, source.as_deref())?;
    let id = SubscriptionId(state.registry.number());
    let home = contents.worker_of(&request.peer_id, scope.worker());
    spread::mirror(&state, &scope, &mut contents, source.as_deref(), home).await?;
    let worker = state.numbered(home)?;
    let (ssrc, rtx_ssrc) = (next_ssrc(&mut contents)?, next_ssrc(&mut contents)?);
    let command = Command::Subscribe {
        peer,
        subscription: id,
        kind,
        mid: request.mid,
        codecs,
        extensions,
        ssrc,
        rtx_ssrc,
        first_seq: random::first_seq().map_err(of_random)?,
        as_sent,
        publication: bound,
        preferences,
    };
    worker.command(command).await.map_err(of_mailbox)?;
    let subscription = Subscription { id, peer: request.peer_id, publication: source, kind };
    contents.subscriptions.insert(request.subscription_id, subscription);
    let (ssrc, rtx_ssrc) = if as_sent { (0, 0) } else { (ssrc, rtx_ssrc) };
    Ok(v1::SubscribeResponse { ssrc, rtx_ssrc })
}

pub(super) async fn bind(
    state: Arc<State>,
    request: v1::BindRequest,
) -> Result<v1::BindResponse, Status> {
    let source = validate::optional_id("publication_id", request.publication_id)?;
    let scope = state.scope(&request.scope_id)?;
    let mut contents = lock(&scope).await?;
    let entry = subscription(&contents, &request.subscription_id)?;
    let (id, worker) = (entry.id, contents.worker_of(&entry.peer, scope.worker()));
    let bound = number_of(&contents, source.as_deref())?;
    spread::mirror(&state, &scope, &mut contents, source.as_deref(), worker).await?;
    let command = Command::Bind { subscription: id, publication: bound };
    state.numbered(worker)?.command(command).await.map_err(of_mailbox)?;
    if let Some(subscription) = contents.subscriptions.get_mut(&request.subscription_id) {
        subscription.publication = source;
    }
    Ok(v1::BindResponse {})
}

pub(super) async fn set_preferences(
    state: Arc<State>,
    request: v1::SetPreferencesRequest,
) -> Result<v1::SetPreferencesResponse, Status> {
    let scope = state.scope(&request.scope_id)?;
    let contents = lock(&scope).await?;
    let entry = subscription(&contents, &request.subscription_id)?;
    let command = Command::SetPreferences {
        subscription: entry.id,
        preferences: validate::preferences(request.preferences),
    };
    let worker = state.worker_of(&scope, &contents, &entry.peer)?;
    worker.command(command).await.map_err(of_mailbox)?;
    Ok(v1::SetPreferencesResponse {})
}

pub(super) async fn unsubscribe(
    state: Arc<State>,
    request: v1::UnsubscribeRequest,
) -> Result<v1::UnsubscribeResponse, Status> {
    validate::id("scope_id", &request.scope_id)?;
    validate::id("subscription_id", &request.subscription_id)?;
    if let Some(scope) = state.registry.scope(&request.scope_id) {
        let mut contents = scope.state.lock().await;
        if let Some(found) = contents.subscriptions.get(&request.subscription_id) {
            let command = Command::Unsubscribe { subscription: found.id };
            ended(state.worker_of(&scope, &contents, &found.peer)?.command(command).await)?;
            contents.subscriptions.remove(&request.subscription_id);
        }
    }
    Ok(v1::UnsubscribeResponse {})
}

fn number_of(contents: &Contents, source: Option<&str>) -> Result<Option<PublicationId>, Status> {
    source
        .map(|name| contents.publications.get(name).ok_or_else(|| missing("publication", name)))
        .transpose()
        .map(|found| found.map(|publication| publication.id))
}

/// An SSRC that nobody in the scope was ever sent from.
fn next_ssrc(contents: &mut Contents) -> Result<u32, Status> {
    let start = u32::from_ne_bytes(random::bytes().map_err(of_random)?);
    contents.ssrcs.next(start).ok_or_else(|| {
        Status::resource_exhausted(
            "the scope gave out all SSRCs that it has, a thousand million: dispose of it and create it anew",
        )
    })
}

/// What its worker does not know any more has ended: its peer left a moment ago.
fn ended(result: Result<(), MailboxError>) -> Result<(), Status> {
    match result {
        Ok(()) | Err(MailboxError::Refused(CommandError::NotFound(_))) => Ok(()),
        Err(error) => Err(of_mailbox(error)),
    }
}
