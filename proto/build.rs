//! Compiles the protocol with protox, so that no protoc is needed.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=strait/relay/v1/relay.proto");
    let descriptors = protox::compile(["strait/relay/v1/relay.proto"], ["."])?;
    // What holds a key or a password has a `Debug` of its own, which does not show it.
    tonic_prost_build::configure()
        .skip_debug(["SessionKey", "IceCredentials"])
        .compile_fds(descriptors)?;
    Ok(())
}
