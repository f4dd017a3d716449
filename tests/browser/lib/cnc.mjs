// An application's page, and with it a stand-in for a CnC.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const SDK = new URL("../../../control/web/dist/strait.js", import.meta.url);

/** Serves an empty page and the SDK: the servers' own page has a policy that lets it ask nobody else. */
export class ApplicationPage {
  async listen() {
    this.listener = createServer((request, response) => void this.answer(request, response));
    await new Promise((resolve) => this.listener.listen(0, "127.0.0.1", resolve));
    return this;
  }

  get address() {
    return `http://127.0.0.1:${this.listener.address().port}`;
  }

  async answer(request, response) {
    const { pathname } = new URL(request.url, this.address);
    if (pathname === "/") {
      response.setHeader("Content-Type", "text/html");
      return response.end("<!doctype html><title>failover</title>");
    }
    if (pathname === "/strait.js") {
      response.setHeader("Content-Type", "text/javascript");
      return response.end(readFileSync(SDK));
    }
    response.writeHead(404);
    response.end("no such thing");
  }

  close() {
    this.listener.close();
    this.listener.closeAllConnections();
  }
}

/** Not a CnC: names a node of its list, and another one when that is reported and does not answer. */
export class StandInCnc extends ApplicationPage {
  /** `nodes` are origins, such as `http://127.0.0.1:8080`; the first has the scope. */
  static async of(nodes) {
    const cnc = new StandInCnc();
    cnc.nodes = nodes;
    cnc.at = 0;
    /** Endpoints that were reported. */
    cnc.reported = [];
    return cnc.listen();
  }

  endpoint(at) {
    return new URL(this.nodes[at]).host;
  }

  async answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, this.address);
    if (pathname !== "/resolve" || searchParams.get("scopeId") === null) {
      return super.answer(request, response);
    }
    const failed = searchParams.get("streamerEndpoint");
    if (searchParams.get("reconnect") === "true" && failed !== null) {
      this.reported.push(failed);
      const asked = this.at;
      if (failed === this.endpoint(asked) && !(await this.isWell(asked)) && asked === this.at) {
        this.at = (asked + 1) % this.nodes.length;
      }
    }
    response.setHeader("Access-Control-Allow-Origin", "*");
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
}
