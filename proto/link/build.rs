//! Compiles the protocol with protox, so that no protoc is needed.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../strait/link/v1/link.proto");
    let descriptors = protox::compile(["strait/link/v1/link.proto"], [".."])?;
    // What holds a key or a credential has a `Debug` of its own, which does not show it.
    tonic_prost_build::configure()
        .skip_debug(["SessionKey", "SignedCredential", "Auth", "IceCredentials", "Authenticated"])
        .compile_fds(descriptors)?;
    Ok(())
}
