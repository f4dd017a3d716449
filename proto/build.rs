//! Compiles the protocol with protox, so that no protoc is needed.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=strait/relay/v1/relay.proto");
    let descriptors = protox::compile(["strait/relay/v1/relay.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
