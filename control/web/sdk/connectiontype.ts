import { CONNECTION_TYPE_INTERVAL_MS } from "./limits.js";
import { type Entries, entriesOf, selectedPair } from "./report.js";
import type { Timers } from "./timers.js";

/** Which way media takes: over the node by UDP or TCP, straight to the other peer, or not at all. */
export type ConnectionType = "udp-relay" | "tcp-relay" | "p2p" | "none";

/** The way of a report's selected pair of candidates. */
export function connectionTypeOf(entries: Entries): ConnectionType {
  const pair = selectedPair(entries);
  const local = entries.get(String(pair?.["localCandidateId"]));
  if (!pair || !local) return "none";
  // Of a candidate of a TURN server `protocol` is what the server sends by: the way there counts.
  const protocol = local["relayProtocol"] ?? local["protocol"];
  return protocol === "udp" ? "udp-relay" : "tcp-relay";
}

/** Tells when a connection's way changes. */
export class ConnectionTypeWatch {
  private type: ConnectionType = "none";
  private cancel: () => void = () => {};
  private closed = false;
  private told: ConnectionType = "none";
  private isDirect = false;

  constructor(
    private readonly connection: RTCPeerConnection,
    private readonly timers: Timers,
    private readonly onChange: (type: ConnectionType) => void,
  ) {
    connection.addEventListener("connectionstatechange", () => {
      const { connectionState } = connection;
      if (connectionState === "connected") void this.look();
      if (connectionState === "disconnected" || connectionState === "failed") this.tell("none");
    });
  }

  close(): void {
    this.closed = true;
    this.cancel();
    this.tell("none");
  }

  private async look(): Promise<void> {
    try {
      const type = connectionTypeOf(await entriesOf(this.connection));
      if (this.isUp() && type !== "none") this.tell(type);
    } catch {
      // A connection that was closed meanwhile has nothing to say.
    }
    this.cancel();
    if (!this.isUp()) return;
    // The way may change while the connection stays up, and not every browser has an event for it.
    this.cancel = this.timers.after(CONNECTION_TYPE_INTERVAL_MS, () => void this.look());
  }

  private isUp(): boolean {
    return !this.closed && this.connection.connectionState === "connected";
  }

  /** Something goes directly, whatever way the rest takes. */
  setDirect(isDirect: boolean): void {
    this.isDirect = isDirect;
    this.tell(this.type);
  }

  private tell(type: ConnectionType): void {
    this.type = type;
    const now = this.isDirect && !this.closed ? "p2p" : type;
    if (now === this.told) return;
    this.told = now;
    this.onChange(now);
  }
}
