// A native client that says and hears messages: the example `messages` of the Rust SDK.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { TOKEN, program } from "./server.mjs";

export class Native {
  /** Joins a scope under the name `native`. */
  static async join(server, scope) {
    const native = new Native();
    const certificate = join(server.state, "certificate.pem");
    const where = ["127.0.0.1", String(server.mediaPort), certificate, TOKEN, scope, "native"];
    native.process = spawn(program("examples/messages"), where, {
      stdio: ["pipe", "pipe", "inherit"],
    });
    native.lines = createInterface({ input: native.process.stdout })[Symbol.asyncIterator]();
    native.peer = (await native.line()).joined;
    return native;
  }

  async line() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`the native client ended (${this.process.exitCode})`);
    return JSON.parse(value);
  }

  /** To one peer, or to all others: `*`. */
  say(to, text) {
    this.process.stdin.write(`${to} ${text}\n`);
  }

  /** The next messages, in their order. */
  async heard(count) {
    const all = [];
    while (all.length < count) all.push(await this.line());
    return all;
  }

  end() {
    this.process.stdin.end();
  }
}
