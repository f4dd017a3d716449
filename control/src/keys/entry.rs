//! One application as Redis has it: JSON, with its keys.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::auth::{Application, Key, Material, PublicKey, Secret};
use crate::limits::{APPLICATIONS_COPIED, KEYS_PER_APPLICATION};

/// What stands in a field of the hash. Fields that this version does not know are ignored, so that
/// half a cluster can be newer.
#[derive(Serialize, Deserialize)]
struct Entry {
    concatenated: bool,
    changes_keys: bool,
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
struct KeyEntry {
    id: String,
    kind: String,
    material: String,
    enabled: bool,
    created: u64,
}

/// An application as text.
pub fn write(application: &Application) -> String {
    let keys = application.keys.iter().map(|key| KeyEntry {
        id: key.id.clone(),
        kind: key.material.kind().to_owned(),
        material: match &key.material {
            Material::Secret(secret) => secret.expose().to_owned(),
            Material::Es256(public) => public.pem().to_owned(),
        },
        enabled: key.is_enabled,
        created: key.created,
    });
    let entry = Entry {
        concatenated: application.concatenated,
        changes_keys: application.changes_keys,
        keys: keys.collect(),
    };
    // Texts, numbers and truths always are JSON.
    serde_json::to_string(&entry).unwrap_or_default()
}

/// All applications of a hash. What cannot be read is left out: its clients are refused, and others
/// are not.
pub fn read(entries: HashMap<String, String>) -> HashMap<String, Application> {
    if entries.len() > APPLICATIONS_COPIED {
        warn!("keys: of {} applications {APPLICATIONS_COPIED} are known here", entries.len());
    }
    let entries = entries.into_iter().take(APPLICATIONS_COPIED);
    let read = entries.filter_map(|(id, text)| match application(&id, &text) {
        Ok(application) => Some((id, application)),
        Err(why) => {
            warn!("keys: the entry of {id:?} is left out: {why}");
            None
        }
    });
    read.collect()
}

fn application(id: &str, text: &str) -> Result<Application, String> {
    // Never with the text itself: it holds secrets.
    let entry: Entry = serde_json::from_str(text)
        .map_err(|e| format!("{} at {}", e.classify() as u8, e.column()))?;
    let keys = entry.keys.into_iter().take(KEYS_PER_APPLICATION).filter_map(|key| {
        let material = match key.kind.as_str() {
            "secret" => Material::Secret(Secret::from(key.material)),
            "es256" => match PublicKey::from_pem(&key.material) {
                Ok(public) => Material::Es256(public),
                Err(fault) => return Some(Err(fault.reason)),
            },
            // A kind of a newer version: the others of the application still count.
            _ => return None,
        };
        let is_enabled = key.enabled;
        Some(Ok(Key { id: key.id, material, is_enabled, created: key.created }))
    });
    Ok(Application {
        id: id.to_owned(),
        concatenated: entry.concatenated,
        changes_keys: entry.changes_keys,
        keys: keys.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let public = crate::auth::PrivateKey::random().unwrap().public().unwrap();
        let mut off = Key::new("old", Material::Secret("not any more".into()), 3);
        off.is_enabled = false;
        let application = Application {
            id: "acme".into(),
            concatenated: true,
            changes_keys: false,
            keys: vec![Key::new("pair", Material::Es256(public), 7), off],
        };
        let read = read(HashMap::from([
            ("acme".to_owned(), write(&application)),
            ("broken".to_owned(), "{".to_owned()),
            ("other".to_owned(), "[]".to_owned()),
        ]));
        assert_eq!(read.get("acme"), Some(&application));
        assert_eq!(read.len(), 1);
    }

    #[test]
    fn a_newer_version_is_no_obstacle() {
        let text = r#"{"concatenated":false,"changes_keys":true,"color":"blue","keys":[
            {"id":"a","kind":"post-quantum","material":"x","enabled":true,"created":1},
            {"id":"b","kind":"secret","material":"y","enabled":true,"created":2,"weight":3}]}"#;
        let read = application("acme", text).unwrap();
        assert_eq!(read.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
