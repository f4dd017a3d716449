// A real relay and control, started by `strait dev` on free ports in a folder of their own.
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { appendFileSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const TOKEN = "browser-token";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const programs =
  process.env.STRAIT_BIN_DIR ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug");

/** The path of one of our programs. */
export const program = (name) => join(programs, name);

/** Keeps what a server logs, for `./dev test` to search it for secrets. */
function keep(server, data) {
  const { STRAIT_LOGS } = process.env;
  if (STRAIT_LOGS) appendFileSync(join(STRAIT_LOGS, `browser-${process.pid}-${server.httpPort}.log`), data);
}

export class Server {
  /**
   * Starts and waits until `/readyz` says so. `metricsPort` is that of the relay's own metrics, 0 for none;
   * `operatorToken` one of the API; `before` is given the address of the store, which is not there yet. Media goes by the
   * relay, which most tests are about, unless two may go directly. It is at 127.0.0.1, or at another `ip` on another `host`.
   */
  static async start({
    metricsPort = 0, operatorToken, before, direct = false, host, ip = "127.0.0.1",
  } = {}) {
    const server = new Server();
    server.state = await mkdtemp(join(tmpdir(), "strait-browser-"));
    server.httpPort = await freePort();
    server.mediaPort = await freePort();
    server.ip = ip;
    server.output = "";
    await before?.(`sqlite:${join(server.state, "control.db")}`);
    const options = {
      "--bin-dir": programs,
      "--address": ip,
      "--http-port": server.httpPort,
      "--https-port": server.mediaPort,
      "--media-port": server.mediaPort,
      "--metrics-port": metricsPort,
      "--token": TOKEN,
      "--state-dir": server.state,
      "--log": "info",
      ...(operatorToken ? { "--operator-token": operatorToken } : {}),
    };
    const list = Object.entries(options).flatMap(([name, value]) => [name, String(value)]);
    if (!direct) list.push("--relayed");
    const words = [program("strait"), "dev", ...list];
    const [first, ...rest] = host ? host.command(...words) : words;
    for (const port of host ? [server.httpPort, metricsPort] : []) {
      if (port) await host.forward(port);
    }
    server.process = spawn(first, rest, {
      stdio: ["ignore", "pipe", "pipe"],
    });
    server.ended = new Promise((resolve) => {
      server.process.on("exit", resolve);
      server.process.on("error", (error) => {
        server.output += String(error);
        resolve(-1);
      });
    });
    for (const stream of [server.process.stdout, server.process.stderr]) {
      stream.on("data", (data) => {
        server.output = (server.output + data).slice(-100_000);
        keep(server, data);
      });
    }
    await server.ready(30_000);
    return server;
  }

  get address() {
    return `http://127.0.0.1:${this.httpPort}`;
  }

  get secureAddress() {
    return `https://${this.ip}:${this.mediaPort}`;
  }

  async ready(withinMs) {
    const end = Date.now() + withinMs;
    for (;;) {
      const signal = AbortSignal.timeout(5_000);
      const answer = await fetch(`${this.address}/readyz`, { signal }).catch(() => undefined);
      if (answer?.status === 200) return;
      if (this.process.exitCode !== null || Date.now() > end) {
        const { output } = this;
        await this.stop();
        throw new Error(`strait dev is not ready:\n${output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /**
   * Its control begins anew, as a node and a CnC of a cluster whose mappings are in this Redis; pages
   * of `origin` may ask it.
   */
  async joinCluster(name, redisPort, origin) {
    const path = join(this.state, "control.toml");
    const before = await readFile(path, "utf8");
    const cluster = [
      `name = "${name}"`, `public = "127.0.0.1:${this.mediaPort}"`,
      `mappings = ["redis://127.0.0.1:${redisPort}"]`,
    ];
    const http = before.replace("[http]\n", `[http]\ncors_origins = ["${origin}"]\n`);
    await writeFile(path, `${http}\n[cluster]\n${cluster.join("\n")}\n`);
    this.kill("strait-control");
    // What runs without a cluster lets no page of another origin read its answers.
    const isThere = async () => {
      const answer = await this.asked("first", { headers: { Origin: origin } });
      return answer?.headers.get("Access-Control-Allow-Origin") === origin && answer.ok;
    };
    for (const end = Date.now() + 30_000; !(await isThere()); ) {
      if (Date.now() > end) throw new Error(`it is not in the cluster:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  asked(scope, options) {
    const target = `${this.address}/resolve?applicationId=dev&scopeId=${scope}`;
    return fetch(target, options).catch(() => undefined);
  }

  /** The node of a scope, as this one's CnC says. */
  async resolve(scope) {
    return (await this.asked(scope))?.text();
  }

  /** Ends one of the two programs, by default at once; `strait dev` starts it again. */
  kill(name, signal = "SIGKILL") {
    for (const { pid, command } of this.programs()) {
      if (!command.endsWith(name)) continue;
      try {
        process.kill(pid, signal);
      } catch {
        // It ended by itself.
      }
    }
  }

  /** Ends all of it at once, for good: a host that loses its power. */
  async die() {
    // Stopped first, or it starts again what ends.
    this.process.kill("SIGSTOP");
    this.kill("", "SIGKILL");
    this.process.kill("SIGKILL");
    await this.ended;
  }

  /** Nothing of it does anything any more; connections stay as they are. */
  freeze() {
    this.process.kill("SIGSTOP");
    this.kill("", "SIGSTOP");
    this.frozen = true;
  }

  /** What `strait dev` started. */
  programs() {
    const found = [];
    for (const entry of readdirSync("/proc")) {
      if (!/^\d+$/.test(entry)) continue;
      try {
        const [, parent] = readFileSync(`/proc/${entry}/stat`, "utf8").split(") ")[1].split(" ");
        const command = readFileSync(`/proc/${entry}/cmdline`, "utf8").split("\0")[0];
        if (Number(parent) === this.process.pid) found.push({ pid: Number(entry), command });
      } catch {
        // The process ended while it was looked at.
      }
    }
    return found;
  }

  async stop() {
    if (this.frozen) await this.die();
    if (this.process.exitCode === null && !this.process.killed && this.process.pid !== undefined) {
      this.process.kill("SIGTERM");
      const late = setTimeout(() => this.process.kill("SIGKILL"), 8_000);
      await this.ended;
      clearTimeout(late);
    }
    await rm(this.state, { recursive: true, force: true });
  }
}

/** A TCP relay before the server, whose connections a test can cut. */
export class Cuttable {
  static async before(port) {
    const cuttable = new Cuttable();
    cuttable.sockets = new Set();
    cuttable.open = true;
    cuttable.listener = net.createServer((near) => {
      if (!cuttable.open) return near.destroy();
      const far = net.connect(port, "127.0.0.1");
      for (const [from, to] of [[near, far], [far, near]]) {
        cuttable.sockets.add(from);
        from.on("error", () => {});
        from.on("close", () => {
          cuttable.sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    });
    await new Promise((resolve) => cuttable.listener.listen(0, "127.0.0.1", resolve));
    return cuttable;
  }

  get address() {
    return `http://127.0.0.1:${this.listener.address().port}`;
  }

  /** Breaks every connection, and lets none in until `mend`. */
  cut() {
    this.open = false;
    for (const socket of this.sockets) socket.destroy();
  }

  mend() {
    this.open = true;
  }

  close() {
    this.cut();
    this.listener.close();
  }
}

/** A port that is free for TCP and UDP now. */
export async function freePort() {
  for (;;) {
    const listener = net.createServer();
    await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
    const { port } = listener.address();
    const datagram = createSocket("udp4");
    const free = await new Promise((resolve) => {
      datagram.once("error", () => resolve(false));
      datagram.bind(port, "127.0.0.1", () => resolve(true));
    });
    datagram.close();
    await new Promise((resolve) => listener.close(resolve));
    if (free) return port;
  }
}
