/** The token, kept for this tab alone and never in an address. */
const KEY = "strait.dashboard.token";

export function recall(): string | undefined {
  try {
    return sessionStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

/** `undefined` forgets it. */
export function keep(token: string | undefined): void {
  try {
    if (token === undefined) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Storage is switched off: a reload then asks again.
  }
}
