//! What a program says it is.

/// Version of the program that asks, with the commit that it was built from where `./dev` built it:
/// `0.1.0 (d5620bafc6e1)`, `-dirty` behind what had changes. Two builds of one version are told apart by it.
#[macro_export]
macro_rules! version {
    () => {
        $crate::version(env!("CARGO_PKG_VERSION"), option_env!("STRAIT_COMMIT"))
    };
}

/// What [`version!`](crate::version!) says. It is asked for once in a process, and never given back.
pub fn version(number: &'static str, commit: Option<&str>) -> &'static str {
    match commit {
        Some(commit) if !commit.is_empty() => format!("{number} ({commit})").leak(),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_commit_is_named_where_it_is_known() {
        assert_eq!(super::version("0.1.0", Some("d5620ba-dirty")), "0.1.0 (d5620ba-dirty)");
        assert_eq!(super::version("0.1.0", Some("")), "0.1.0");
        assert_eq!(super::version("0.1.0", None), "0.1.0");
    }
}
