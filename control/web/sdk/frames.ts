/** What kind of frame: docs/reference/jsonrtc.md, control header `type`. */
export type FrameType = "request" | "response" | "message" | "acknowledgement" | "error";

export interface ControlHeaders {
  type: FrameType;
  version?: string;
  session_id?: string;
  sequence?: number;
  ack_sequence?: number;
  message_state?: "initial" | "subsequent" | "final";
  package_type?: string;
  subsession_id?: string;
  correlation_id?: string;
}

export interface GeneralHeaders {
  action?: string;
  initiator?: string;
  target?: string;
  error_code?: number;
  reason?: string;
  /** With the error 307: the origin of the node that has the scope. */
  location?: string;
  token?: string;
  /** Last sequence received from the server, in a reconnect. */
  cslr?: number;
  /** Lower bound (exclusive) of the client's retained frames, in a reconnect. */
  cslw?: number;
  /** Upper bound (inclusive) of the client's retained frames, in a reconnect. */
  csuw?: number;
  /** Last sequence that the server received, in its answer to a reconnect. */
  sslr?: number;
}

/** One JSON object in one text message. */
export interface Frame {
  control: ControlHeaders;
  header: GeneralHeaders;
  payload: unknown;
}

/** Reads a text message; undefined when it is no frame. Numbers may be written as strings. */
export function parseFrame(text: string): Frame | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value) || !isObject(value["control"])) return undefined;
  const control = { ...value["control"] } as Record<string, unknown>;
  if (typeof control["type"] !== "string") return undefined;
  const header = isObject(value["header"]) ? { ...value["header"] } : {};
  for (const name of ["sequence", "ack_sequence"]) numberIn(control, name);
  for (const name of ["error_code", "sslr"]) numberIn(header, name);
  if (typeof header["action"] === "string") header["action"] = header["action"].toUpperCase();
  return {
    control: control as unknown as ControlHeaders,
    header: header as GeneralHeaders,
    payload: value["payload"] ?? {},
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Makes a number of the member, or takes it away when it is none. */
function numberIn(object: Record<string, unknown>, name: string): void {
  const value = object[name];
  if (value === undefined) return;
  const number = typeof value === "string" && value !== "" ? Number(value) : value;
  if (typeof number === "number" && Number.isSafeInteger(number) && number >= 0) {
    object[name] = number;
  } else {
    delete object[name];
  }
}
