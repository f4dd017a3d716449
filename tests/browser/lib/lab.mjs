// A bad line before the relay's media port: `strait lab` (docs/lab.md), and a browser made to go through it.
import { spawn } from "node:child_process";
import { networkInterfaces } from "node:os";
import { createInterface } from "node:readline";
import { program } from "./server.mjs";

export class Lab {
  /** Starts one before this port; `words` are its conditions. */
  static async before(port, words) {
    const lab = new Lab();
    lab.target = port;
    // Firefox neither sends to loopback nor takes it for its own address: the relay has another one.
    const addresses = Object.values(networkInterfaces()).flat();
    const outer = addresses.find(({ family, internal }) => family === "IPv4" && !internal);
    const ends = ["--listen", "0.0.0.0:0", "--to", `${outer?.address ?? "127.0.0.1"}:${port}`];
    const options = [...ends, "--set", words, "--until-eof"];
    lab.process = spawn(program("strait"), ["lab", ...options], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    lab.lines = createInterface({ input: lab.process.stdout })[Symbol.asyncIterator]();
    const [, address] = (await lab.line()).split("listening ");
    lab.port = Number(address.split(":").at(-1));
    return lab;
  }

  async line() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`strait lab ended (${this.process.exitCode})`);
    return value;
  }

  /** Changes the line; returns when that was, in milliseconds since the epoch. */
  async set(words) {
    this.process.stdin.write(`${words}\n`);
    const answer = await this.line();
    if (answer !== "ok") throw new Error(`${words}: ${answer}`);
    return Date.now();
  }

  /** What its lines did. */
  async tell() {
    this.process.stdin.write("tell\n");
    return JSON.parse(await this.line());
  }

  /** Sends the media of a tab through it, whose page is opened afterwards. */
  async carry(tab) {
    await tab.first(reroute, [this.target, this.port]);
  }

  close() {
    this.process.stdin.end();
  }
}

/** The candidate of an answer becomes that of the lab; there is no other way left. */
function reroute([from, to]) {
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  const isTcp = (line) => /^a=candidate:\S+ \d+ tcp /i.test(line);
  const moved = (line) =>
    /^a=candidate:/.test(line) ? line.replace(` ${from} typ `, ` ${to} typ `) : line;
  RTCPeerConnection.prototype.setRemoteDescription = function (description) {
    const lines = description.sdp.split("\r\n").filter((line) => !isTcp(line));
    const sdp = lines.map(moved).join("\r\n");
    return setRemoteDescription.call(this, { type: description.type, sdp });
  };
}
