// What lies between two browsers that go directly: each of their candidates becomes one of ours, which passes on what
// comes, until it is cut.
import { createSocket } from "node:dgram";
import { networkInterfaces } from "node:os";

export class Crossing {
  constructor() {
    this.sockets = [];
    this.places = new Map();
    this.open = true;
    // Firefox does not take loopback for an address of its own.
    const addresses = Object.values(networkInterfaces()).flat();
    this.address = addresses.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
  }

  /** Has a tab, whose page is opened afterwards, reach the other one through here alone. */
  async carry(tab) {
    const place = (address, port) => this.place(address, port);
    await tab.page.exposeFunction("crossing", place);
    await tab.first(reroute, this.address);
  }

  /** Everything is lost from now on. */
  cut() {
    this.open = false;
  }

  close() {
    for (const socket of this.sockets) socket.close();
  }

  /** A port of ours that stands for this place. */
  place(address, port) {
    const key = `${address} ${port}`;
    if (!this.places.has(key)) this.places.set(key, this.stand(address, port));
    return this.places.get(key);
  }

  async stand(address, port) {
    const far = new Map();
    const near = await this.socket();
    near.on("message", async (data, { address: from, port: at }) => {
      const key = `${from} ${at}`;
      if (!far.has(key)) {
        const made = this.socket();
        far.set(key, made);
        const socket = await made;
        socket.on("message", (back) => {
          if (this.open) near.send(back, at, from);
        });
      }
      const socket = await far.get(key);
      if (this.open) socket.send(data, port, address);
    });
    return near.address().port;
  }

  async socket() {
    const socket = createSocket("udp4");
    // What was refused comes again, or is given up by who sent it.
    socket.on("error", () => {});
    await new Promise((resolve) => socket.bind(0, this.address, resolve));
    this.sockets.push(socket);
    return socket;
  }
}

/** Runs in the page: candidates of the other browser are replaced, and those in descriptions taken out. */
function reroute(own) {
  const { addIceCandidate, setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addIceCandidate = async function (candidate) {
    const parts = candidate.candidate.split(" ");
    const [, , protocol, , address, port] = parts;
    if (protocol?.toLowerCase() !== "udp" || !/^[0-9.]+$/.test(address)) return;
    parts[5] = await globalThis.crossing(address, Number(port));
    parts[4] = own;
    await addIceCandidate.call(this, { ...candidate, candidate: parts.join(" ") });
  };
  RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
    const isRelay = /^a=ice-lite/m.test(sdp);
    const kept = sdp.split("\r\n").filter((line) => isRelay || !line.startsWith("a=candidate:"));
    return setRemoteDescription.call(this, { type, sdp: kept.join("\r\n") });
  };
}
