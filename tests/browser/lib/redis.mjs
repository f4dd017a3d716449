// A real Redis that keeps nothing.
import { spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import net from "node:net";
import { freePort } from "./server.mjs";

export class Redis {
  /** Undefined where none is installed. */
  static async start() {
    const redis = new Redis();
    redis.port = await freePort();
    const options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", redis.port];
    redis.process = spawn("redis-server", options.map(String), { stdio: "ignore" });
    const missing = new Promise((resolve) => redis.process.on("error", () => resolve(false)));
    redis.ended = new Promise((resolve) => redis.process.on("exit", resolve));
    return (await Promise.race([missing, redis.ready()])) ? redis : undefined;
  }

  async ready() {
    for (let left = 200; left > 0; left -= 1) {
      const answers = await new Promise((resolve) => {
        const socket = net.connect(this.port, "127.0.0.1", () => resolve(true));
        socket.on("error", () => resolve(false));
        socket.on("connect", () => socket.destroy());
      });
      if (answers) return true;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("redis-server does not answer within 10 s");
  }

  async stop() {
    this.process.kill("SIGKILL");
    await this.ended;
  }
}

/** Leaves a test out, and says why in the summary of `./dev test`. */
export function skip(test, why) {
  if (process.env.STRAIT_SKIPS) appendFileSync(process.env.STRAIT_SKIPS, `real browsers: ${test.name}: ${why}\n`);
  test.skip(why);
}
