//! Addresses of stores: what of them may be seen, and what they may say.

/// Parameters of an address that sqlx takes. It logs others with what they say.
const MYSQL: &[&str] = &[
    "charset",
    "collation",
    "socket",
    "sslca",
    "sslcert",
    "sslkey",
    "sslmode",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "statement-cache-capacity",
    "time-zone",
    "timezone",
];
const POSTGRES: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// An address without user, password and parameters; of one that could be read in two ways no more
/// than the engine.
pub fn shown(url: &str) -> String {
    let Some((engine, rest)) = url.split_once("://") else {
        let path = url.split('?').next().unwrap_or_default();
        return if path.starts_with("sqlite:") { path.into() } else { "…".into() };
    };
    let hidden = || format!("{engine}://…");
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (place, more) = rest.split_at(end);
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    let bare = host.rsplit_once(']').map_or(host, |(_, port)| port);
    let is_port = |port: &str| port.chars().all(|c| c.is_ascii_digit());
    if more.contains('@') || bare.split_once(':').is_some_and(|(_, port)| !is_port(port)) {
        return hidden();
    }
    let path = more.split(['?', '#']).next().unwrap_or_default();
    format!("{engine}://{host}{path}")
}

/// Whether a store can be at this address.
///
/// # Errors
/// What is wrong, without the text, which may hold a password.
pub fn check(url: &str) -> Result<(), String> {
    let known = match url.split_once(':').map(|(engine, _)| engine) {
        Some("sqlite") => return Ok(()),
        Some("mysql") if url.starts_with("mysql://") => MYSQL,
        Some("postgres") if url.starts_with("postgres://") => POSTGRES,
        _ => {
            return Err("this is neither sqlite:PATH nor mysql://USER:PASSWORD@HOST/DATABASE nor \
                        postgres://USER:PASSWORD@HOST/DATABASE"
                .into());
        }
    };
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let mut keys = parameters.split('&').filter(|part| !part.is_empty()).map(|part| {
        let key = part.split('=').next().unwrap_or_default();
        key.split('[').next().unwrap_or_default()
    });
    if keys.any(|key| !known.contains(&key)) {
        return Err(format!(
            "what comes after the question mark has a parameter that is not known; these are: {} \
             (a question mark in a password is written %3F)",
            known.join(", ")
        ));
    }
    Ok(())
}

/// Where distributions keep the roots that a system trusts, in one file.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// The system's roots, for an address that wants certificates checked and names none.
///
/// # Errors
/// There are none where they are usually kept, or the file that is named cannot be read.
pub fn roots(url: &str) -> Result<Option<&'static str>, sqlx::Error> {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let parameters = parameters.split('&').filter_map(|part| part.split_once('='));
    let modes = ["sslmode", "ssl-mode"];
    let files = ["sslca", "ssl-ca", "sslrootcert", "ssl-root-cert"];
    let is_checked = parameters.clone().any(|(key, value)| {
        modes.contains(&key) && value.to_ascii_lowercase().starts_with("verify")
    });
    let own = ["sslcert", "ssl-cert", "sslkey", "ssl-key"];
    let named = parameters.clone().filter(|(key, _)| files.contains(key) || own.contains(key));
    for (_, file) in named.filter(|(_, file)| !file.contains('%')) {
        // sqlx tells of it as of a server that is away.
        let wrong = |error| sqlx::Error::Tls(format!("{file} cannot be read: {error}").into());
        std::fs::File::open(file).map_err(wrong)?;
    }
    if !is_checked || parameters.clone().any(|(key, _)| files.contains(&key)) {
        return Ok(None);
    }
    let found = SYSTEM_ROOTS.into_iter().find(|path| std::path::Path::new(path).exists());
    found.map(Some).ok_or_else(|| {
        sqlx::Error::Tls("this system has no roots; name a file by ssl-ca or sslrootcert".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        for (url, seen) in [
            ("mysql://strait:hush@db.example:3306/strait", "mysql://db.example:3306/strait"),
            ("mysql://strait:hu@sh@db.example/strait", "mysql://db.example/strait"),
            ("postgres://db/strait?password=hush&sslmode=require", "postgres://db/strait"),
            ("postgres://db/strait?password=a@hush", "postgres://…"),
            ("mysql://u:hu/sh@db/strait", "mysql://…"),
            ("mysql://u:hush?x@db/strait", "mysql://…"),
            ("mysql://u:hush", "mysql://…"),
            ("postgres://u:hush@[::1]:5432/a", "postgres://[::1]:5432/a"),
            ("postgres://[::1]:hush/a", "postgres://…"),
            ("sqlite:a@b.db", "sqlite:a@b.db"),
            ("sqlite:a.db?key=hush", "sqlite:a.db"),
            ("hush", "…"),
        ] {
            assert_eq!(shown(url), seen, "{url}");
        }
    }

    #[test]
    fn what_is_unknown_is_refused_and_not_told() {
        for url in [
            "redis:hush",
            "mysql:hush",
            "mysql://u@db/strait?password=hush",
            "postgres://db/strait?pasword=hush",
            "postgres://u:a?hush@db/strait",
        ] {
            let why = check(url).unwrap_err();
            assert!(!why.contains("hush"), "{why}");
        }
        for url in [
            "sqlite:a.db?mode=rwc",
            "mysql://u:p@db/strait?ssl-mode=VERIFY_CA&ssl-ca=/a.pem",
            "postgres://db/strait?password=x&options[statement_timeout]=5s",
            "postgres://db",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }
}
