// Hosts to test with: network namespaces. The node is on one in the middle, and a browser's host is behind a router to each
// side of it. Gone when closed.
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A program on another host begins within this time, or is begun again, so often altogether. */
const [READY_MS, TRIES] = [10_000, 3];
const SIDES = ["left", "right"];

/**
 * What a router does for the host behind it, as rules of nftables. Without being told to, Linux keeps the port that a host
 * sends from, whoever it is for, and lets in what answers.
 */
const NATS = {
  /** Ports are kept, and strangers stay outside. */
  cone: () => [...masquerade(), ...noStrangers()],
  /** Ports are kept, and whoever knows one gets in. */
  open: (host) => [
    ...masquerade(),
    ...noStrangers("ct status dnat accept"),
    "add chain ip router in { type nat hook prerouting priority -100; }",
    `add rule ip router in iifname relay meta l4proto udp dnat to ${host}`,
  ],
  /** Another port for each place that is sent to. */
  symmetric: () => [...masquerade("fully-random"), ...noStrangers()],
  /** No NAT at all: the host's address is known to everybody. */
  none: () => [],
};

const masquerade = (how = "") => [`add rule ip router out oifname relay masquerade ${how}`];

const noStrangers = (...but) =>
  ["input", "forward"].flatMap((hook) => [
    `add chain ip router ${hook} { type filter hook ${hook} priority 0; }`,
    ...but.map((rule) => `add rule ip router ${hook} ${rule}`),
    `add rule ip router ${hook} iifname relay ct state new drop`,
  ]);

/** What began before goes on as it did: connections are known and translated while there is a rule that is about them. */
const RULES = [
  "flush ruleset",
  "add table ip router",
  "add chain ip router out { type nat hook postrouting priority 100; }",
  "add rule ip router out oifname nowhere masquerade",
];

function run(program, args, input) {
  const { error, status, stderr } = spawnSync(program, args, { input, encoding: "utf8" });
  if (error || status !== 0) {
    throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
  }
}

const ip = (...args) => run("ip", args);

/** One of them. */
export class Host {
  constructor(name) {
    this.name = name;
    this.children = [];
    ip("netns", "add", name);
    ip("-n", name, "link", "set", "lo", "up");
  }

  /** The words that run a program here. */
  command(...words) {
    return ["ip", "netns", "exec", this.name, ...words];
  }

  set(path, value) {
    const [program, ...args] = this.command("sh", "-c", `echo ${value} > ${path}`);
    run(program, args);
  }

  /** A program that runs that one here. */
  async wrapped(program) {
    await this.makeFolder();
    const path = join(this.folder, "run");
    const words = this.command(program).join(" ");
    await writeFile(path, `#!/bin/sh\nexec ${words} "$@"\n`, { mode: 0o755 });
    return path;
  }

  /** Lets the host of the tests reach this port of this host's loopback at its own. */
  async forward(port) {
    await this.makeFolder();
    const path = join(this.folder, String(port));
    const [program, ...args] = this.command(process.execPath, "-e", FORWARD, path, port);
    for (let number = 1; ; number += 1) {
      const child = spawn(program, args.map(String), { stdio: ["pipe", "pipe", "inherit"] });
      this.children.push(child);
      const isReady = await new Promise((resolve) => {
        child.stdout.once("data", () => resolve(true));
        child.once("exit", () => resolve(false));
        setTimeout(() => resolve(false), READY_MS).unref();
      });
      if (isReady) break;
      child.kill("SIGKILL");
      if (number === TRIES) throw new Error(`nothing forwards port ${port} of ${this.name}`);
      await rm(path, { force: true });
    }
    const listener = net.createServer((near) => couple(near, net.connect(path)));
    await new Promise((resolve) => listener.listen(port, "127.0.0.1", resolve));
    listener.unref();
  }

  async makeFolder() {
    this.folder ??= await mkdtemp(join(tmpdir(), "strait-host-"));
  }

  async close() {
    for (const child of this.children) child.kill("SIGKILL");
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
    // With it go its links and the other ends of them.
    spawnSync("ip", ["netns", "delete", this.name]);
  }
}

function couple(near, far) {
  for (const [from, to] of [[near, far], [far, near]]) {
    from.on("error", () => to.destroy());
    from.on("close", () => to.destroy());
    from.pipe(to);
  }
}

/** Runs on a host, until its standard input ends: what comes to a path goes to a port. */
const FORWARD = `
const [path, port] = process.argv.slice(1);
const net = require("node:net");
${couple}
const listener = net.createServer((near) => couple(near, net.connect(port, "127.0.0.1")));
listener.listen(path, () => console.log("ready"));
process.stdin.resume().on("end", () => process.exit());
`;

/** The three hosts with programs on them, and the routers between. */
export class Hosts {
  /** Throws with the reason where this machine gives none. */
  static async make() {
    const hosts = new Hosts();
    try {
      hosts.begin();
    } catch (error) {
      await hosts.close();
      throw error;
    }
    return hosts;
  }

  constructor() {
    this.all = [];
    /** Of the node, as both sides see it. */
    this.address = "10.97.1.1";
  }

  begin() {
    this.node = this.host("node");
    this.sides = SIDES.map((side, index) => {
      const router = this.host(`${side}-router`);
      const home = this.host(side);
      const [outside, inside] = [`10.97.${index + 1}`, `10.97.${index + 11}`];
      this.link([this.node, side, `${outside}.1`], [router, "relay", `${outside}.2`]);
      this.link([router, "home", `${inside}.1`], [home, "router", `${inside}.2`]);
      ip("-n", router.name, "route", "add", "default", "via", `${outside}.1`);
      ip("-n", home.name, "route", "add", "default", "via", `${inside}.1`);
      router.set("/proc/sys/net/ipv4/ip_forward", 1);
      const [seen, own] = [`${outside}.2`, `${inside}.2`];
      // Who is told the host's own address gets no further than the router, where that has NAT.
      ip("-n", this.node.name, "route", "add", `${inside}.0/24`, "via", seen);
      return { router, home, seen, own };
    });
    this.behind("cone", "cone");
    this.connect(true);
  }

  host(role) {
    const host = new Host(`strait-${process.pid}-${role}`);
    this.all.push(host);
    return host;
  }

  link(one, other) {
    const [[from, device], [to, end]] = [one, other];
    ip("link", "add", device, "netns", from.name, "type", "veth", "peer", "name", end, "netns", to.name);
    for (const [{ name }, device, address] of [one, other]) {
      ip("-n", name, "address", "add", `${address}/24`, "dev", device);
      ip("-n", name, "link", "set", device, "up");
    }
  }

  /** What the routers do from now on for what begins: names of `NATS`. */
  behind(...kinds) {
    for (const [index, { router, own }] of this.sides.entries()) {
      const rules = [...RULES, ...NATS[kinds[index]](own)].join("\n");
      const [program, ...args] = router.command("nft", "-f", "-");
      run(program, args, `${rules}\n`);
    }
  }

  /** Whether what goes from one side to the other arrives; nobody is told. */
  connect(on) {
    this.node.set("/proc/sys/net/ipv4/ip_forward", on ? 1 : 0);
  }

  async close() {
    for (const host of this.all) await host.close();
  }
}
