// A host with two uplinks to the one that the node is on, as a telephone has with Wi-Fi and its mobile network.
import { spawnSync } from "node:child_process";
import { Host } from "./hosts.mjs";

const UPLINKS = [1, 2];

function ip(...words) {
  const { status, stderr, error } = spawnSync("ip", words, { encoding: "utf8" });
  if (error || status !== 0) throw new Error(`ip ${words.join(" ")}: ${error?.message ?? stderr.trim()}`);
}

const device = (uplink) => `uplink${uplink}`;
const gateway = (uplink) => `10.79.${uplink}.1`;

export class Uplinks {
  /** Throws with the reason where this machine gives no such hosts. */
  static async make() {
    const uplinks = new Uplinks();
    try {
      uplinks.begin();
    } catch (error) {
      await uplinks.close();
      throw error;
    }
    return uplinks;
  }

  constructor() {
    this.all = [];
    /** The node's, by either uplink. */
    this.address = "10.79.0.1";
  }

  begin() {
    this.node = this.host("node");
    this.home = this.host("home");
    const [home, node] = [this.home.name, this.node.name];
    ip("-n", node, "address", "add", `${this.address}/32`, "dev", "lo");
    for (const uplink of UPLINKS) {
      const name = device(uplink);
      ip("link", "add", name, "netns", home, "type", "veth", "peer", "name", name, "netns", node);
      ip("-n", node, "address", "add", `${gateway(uplink)}/24`, "dev", name);
      ip("-n", node, "link", "set", name, "up");
      // What is sent from an uplink's address goes by that uplink.
      ip("-n", home, "rule", "add", "from", this.own(uplink), "table", String(10 + uplink));
      this.give(uplink);
    }
  }

  host(role) {
    const host = new Host(`strait-${process.pid}-${role}`);
    this.all.push(host);
    return host;
  }

  /** The home's address at an uplink. */
  own(uplink) {
    return `10.79.${uplink}.2`;
  }

  /** It is there, again. */
  give(uplink) {
    const [home, name] = [this.home.name, device(uplink)];
    ip("-n", home, "link", "set", name, "up");
    ip("-n", home, "address", "add", `${this.own(uplink)}/24`, "dev", name);
    const way = ["default", "via", gateway(uplink)];
    ip("-n", home, "route", "add", ...way, "metric", String(10 * uplink));
    ip("-n", home, "route", "add", ...way, "table", String(10 + uplink));
  }

  /** It is gone, with its address and its routes. */
  take(uplink) {
    const [home, name] = [this.home.name, device(uplink)];
    ip("-n", home, "link", "set", name, "down");
    ip("-n", home, "address", "flush", "dev", name);
  }

  async close() {
    for (const host of this.all) await host.close();
  }
}
