/** Whose fault an error is, so that an application can choose what to tell a person. */
export type ErrorKind =
  /** The server refused: `code` is its number (401, 403, 404, 409, 413, 415, 429, 488, 500, 503). */
  | "server"
  /** The person or the browser did not allow a device or the screen. */
  | "permission"
  /** There is no such device, or another application holds it. */
  | "device"
  /** No answer from the server's address. */
  | "unreachable"
  /** The server is reached but did not answer in time. */
  | "timeout"
  /** The scope was left, or the session is gone. */
  | "closed"
  /** This browser, this page (no HTTPS) or the SDK cannot do it: an argument may be wrong. */
  | "unsupported";

/** Every error of the SDK: a kind, a code and a reason that a person can read. */
export class StraitError extends Error {
  /** The server's error number, or 0 for an error of this side. */
  readonly code: number;
  readonly kind: ErrorKind;
  /** What happened, the likely cause and the remedy. */
  readonly reason: string;
  /** @internal of the error 307: the origin of the node that has the scope. */
  location: string | undefined;

  constructor(kind: ErrorKind, reason: string, code = 0) {
    super(reason);
    this.name = "StraitError";
    this.kind = kind;
    this.reason = reason;
    this.code = code;
  }
}

/** Wraps whatever was thrown, so that listeners and callers see one type. */
export function asStraitError(thrown: unknown): StraitError {
  if (thrown instanceof StraitError) return thrown;
  const text = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return new StraitError("unsupported", text);
}
