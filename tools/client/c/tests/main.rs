//! The C interface as C programs have it: strait.h, and libstrait both ways.
#![forbid(unsafe_code)]

mod programs;

use programs::{Library, compile, compile_header, folder, run};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use strait_tests::node::Node;

/// A call of a second or two, on a machine that may be slow; the program itself gives up after 60 s.
const CALL: Duration = Duration::from_secs(90);

/// HOST PORT CERTIFICATE TOKEN SCOPE.
fn arguments(node: &Node, scope: &str) -> Vec<String> {
    let certificate = node.certificate().display().to_string();
    let port = node.https().port().to_string();
    vec!["127.0.0.1".into(), port, certificate, "dev".into(), scope.into()]
}

#[test]
fn the_header_is_plain_c99_and_cpp() {
    compile_header("cc", &["-x", "c", "-std=c99"]);
    match Command::new("c++").arg("--version").output() {
        Ok(_) => compile_header("c++", &["-x", "c++", "-std=c++11"]),
        Err(_) => strait_tests::skip("the header in C++", "there is no c++ here"),
    }
}

#[test]
fn the_header_names_the_codes_of_the_library() {
    use strait_client::invoke::code::Code;
    let header = include_str!("../include/strait.h");
    let codes = header.split("enum strait_code {").nth(1).unwrap().split('}').next().unwrap();
    let named: Vec<&str> = codes.split(',').map(str::trim).collect();
    let known: Vec<String> = Code::ALL
        .iter()
        .map(|(code, _)| format!("STRAIT_{} = {}", code.name(), *code as i32))
        .collect();
    assert_eq!(named, known);
}

/// Two programs, one linked with the shared library, one with the archive; then one with two clients.
#[test]
fn programs_call_each_other_and_so_do_clients_of_one() {
    let (node, folder) = (Node::start(), folder());
    let [shared, archive] = [Library::Shared, Library::Archive]
        .map(|library| compile("examples/call.c", library, folder.path()));
    let call = |program: &Path, scope: &str, names: &[&str]| {
        let mut arguments = arguments(&node, scope);
        arguments.extend(names.iter().map(|name| (*name).to_owned()));
        let program = program.to_owned();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        std::thread::spawn(move || good(&run(&program, &arguments, CALL), &names))
    };
    let (ann, bob) = (call(&shared, "two", &["ann"]), call(&archive, "two", &["bob"]));
    ann.join().unwrap();
    bob.join().unwrap();
    call(&shared, "one", &["carol", "dan"]).join().unwrap();
}

fn good(output: &Output, names: &[String]) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{errors}", output.status);
    for name in names {
        assert!(said.contains(&format!("{name}: good: ")), "{said}");
    }
    // Two may have gone over to the direct way by then, or not yet.
    let ways = ["udp_relay", "p2p"].map(|way| format!(r#""transport":"{way}""#));
    let by_udp: usize = ways.iter().map(|way| said.matches(way).count()).sum();
    assert_eq!(by_udp, names.len(), "{said}");
}

#[test]
fn a_wrong_credential_ends_the_program_with_its_name() {
    let (node, folder) = (Node::start(), folder());
    let program = compile("examples/call.c", Library::Shared, folder.path());
    let mut arguments = arguments(&node, "lobby");
    arguments[3] = "wrong".into();
    arguments.push("ann".into());
    let output = run(&program, &arguments, CALL);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    // The node's own code and words: the token is of no known kind.
    assert!(errors.contains(r#""event":"ended","code":"MALFORMED""#), "{errors}");
}

#[test]
fn what_is_wrong_gets_a_code_and_nothing_worse() {
    let folder = folder();
    let program = compile("tests/abuse.c", Library::Shared, folder.path());
    let output = run(&program, &[], Duration::from_secs(200));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(!errors.contains("panicked"), "{errors}");
}
