//! A real encoder of pictures, libvpx's of VP8, that is told what to keep to from picture to picture; and its decoder.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use strait_client::core::uplink::Target;
use tempfile::TempDir;

/// Programs of libvpx, or of none where it is not installed.
pub struct Programs {
    folder: TempDir,
}

impl Programs {
    /// Builds them; `None` where that cannot be, and the test is skipped.
    pub fn build(test: &str) -> Option<Self> {
        if !Path::new("/usr/include/vpx/vp8cx.h").exists() {
            strait_tests::skip(test, "libvpx-dev is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/encoder.c");
        let mut command = Command::new("cc");
        command.args(["-O2", "-Wall", "-Wextra", "-Werror"]).arg(source);
        command.arg("-o").arg(folder.path().join("encoder")).arg("-lvpx");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { folder })
    }

    pub fn encoder(&self) -> Encoder {
        Encoder { program: Program::start(self.folder.path(), &[]) }
    }

    pub fn decoder(&self) -> Decoder {
        Decoder { program: Program::start(self.folder.path(), &["decode"]) }
    }
}

pub struct Encoder {
    program: Program,
}

impl Encoder {
    /// The next picture, so many milliseconds after the one before; nothing if it leaves one out.
    pub fn encode(&mut self, target: Target, passed_ms: u32, key: bool) -> Vec<u8> {
        let bps = u32::try_from(target.bitrate_bps).unwrap();
        for told in [bps, target.height, passed_ms, key.into()] {
            self.program.put(told);
        }
        let size = self.program.answer();
        let mut picture = vec![0; size as usize];
        self.program.from.read_exact(&mut picture).unwrap();
        picture
    }
}

pub struct Decoder {
    program: Program,
}

impl Decoder {
    /// How high a picture is; 0 if it cannot be decoded.
    pub fn decode(&mut self, picture: &[u8]) -> u32 {
        self.program.put(u32::try_from(picture.len()).unwrap());
        self.program.to.write_all(picture).unwrap();
        self.program.answer()
    }
}

struct Program {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Program {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(folder.join("encoder"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn put(&mut self, number: u32) {
        self.to.write_all(&number.to_ne_bytes()).unwrap();
    }

    fn answer(&mut self) -> u32 {
        let mut number = [0; 4];
        self.from.read_exact(&mut number).unwrap();
        u32::from_ne_bytes(number)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _code = self.child.wait();
    }
}
