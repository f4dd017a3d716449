/** What a reload needs to join again; kept for this tab only. */
export interface Call {
  scope: string;
  name: string;
  token: string;
  microphone: boolean;
  camera: boolean;
}

const KEY = "strait.call";

/** The call that this tab was in, if it was reloaded during one. */
export function recall(): Call | undefined {
  try {
    const call: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    if (typeof call !== "object" || call === null || !("scope" in call)) return undefined;
    return call as Call;
  } catch {
    return undefined;
  }
}

export function remember(call: Call): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(call));
  } catch {
    // Storage is switched off: a reload then asks again.
  }
}

export function forget(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Nothing was kept.
  }
}

/** The fields of the form before a person touches them. */
export function defaults(): Call {
  const asked = new URLSearchParams(location.search);
  const loopback = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  return {
    scope: asked.get("scope") || "lobby",
    name: asked.get("name") ?? "",
    // `strait dev` accepts this token; elsewhere a person has one from the operator.
    token: asked.get("token") ?? (loopback ? "dev" : ""),
    microphone: true,
    camera: true,
  };
}
