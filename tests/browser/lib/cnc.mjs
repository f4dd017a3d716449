// Not a CnC: names a node of its list, and another one when that is reported and does not answer. Serves an
// application's page as well: the server's own has a policy that lets it ask nobody else.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const SDK = new URL("../../../control/web/dist/strait.js", import.meta.url);

export class StandInCnc {
  /** `nodes` are origins, such as `http://127.0.0.1:8080`; the first has the scope. */
  static async of(nodes) {
    const cnc = new StandInCnc();
    cnc.nodes = nodes;
    cnc.at = 0;
    /** Endpoints that were reported. */
    cnc.reported = [];
    cnc.listener = createServer((request, response) => void cnc.answer(request, response));
    await new Promise((resolve) => cnc.listener.listen(0, "127.0.0.1", resolve));
    return cnc;
  }

  get address() {
    return `http://127.0.0.1:${this.listener.address().port}`;
  }

  endpoint(at) {
    return new URL(this.nodes[at]).host;
  }

  async answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, this.address);
    const failed = searchParams.get("streamerEndpoint");
    response.setHeader("Access-Control-Allow-Origin", "*");
    if (pathname === "/") {
      response.setHeader("Content-Type", "text/html");
      return response.end("<!doctype html><title>failover</title>");
    }
    if (pathname === "/strait.js") {
      response.setHeader("Content-Type", "text/javascript");
      return response.end(readFileSync(SDK));
    }
    if (pathname !== "/resolve" || searchParams.get("scopeId") === null) {
      response.writeHead(404);
      return response.end("no such thing");
    }
    if (searchParams.get("reconnect") === "true" && failed !== null) {
      this.reported.push(failed);
      const asked = this.at;
      if (failed === this.endpoint(asked) && !(await this.isWell(asked)) && asked === this.at) {
        this.at = (asked + 1) % this.nodes.length;
      }
    }
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ endpoint: this.endpoint(this.at), https: this.nodes[this.at] }));
  }

  /** Three tries within a second. */
  async isWell(at) {
    const tries = [0, 250, 500].map(async (afterMs) => {
      await new Promise((resolve) => setTimeout(resolve, afterMs));
      const signal = AbortSignal.timeout(500);
      const answer = await fetch(`${this.nodes[at]}/livez`, { signal });
      if (!answer.ok) throw new Error("not well");
    });
    return Promise.any(tries).then(() => true, () => false);
  }

  close() {
    this.listener.close();
    this.listener.closeAllConnections();
  }
}
