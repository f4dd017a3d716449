/** Figures and times as people read them. */

const pad = (value: number): string => String(value).padStart(2, "0");

/** In the zone of the viewer: `2026-11-22 04:05`; with `seconds`, those too. */
export function localTime(at: number, seconds = false): string {
  const date = new Date(at);
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}`;
  return `${day} ${time}${seconds ? `:${pad(date.getSeconds())}` : ""}`;
}

/** `04:05` in the zone of the viewer. */
export function clock(at: number): string {
  return localTime(at).slice(11);
}

/** `2026-11-22 04:05:06 UTC`. */
export function utcTime(at: number): string {
  return `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** The day in UTC, as sums by day have it. */
export function utcDay(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

/** The month in UTC. */
export function utcMonth(at: number): string {
  return new Date(at).toISOString().slice(0, 7);
}

/** `1 h 05 min`, `3 min 20 s`, `12 s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${pad(minutes)} min`;
  if (minutes > 0) return `${minutes} min ${pad(whole % 60)} s`;
  return `${whole} s`;
}

const NUMBERS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** With commas between thousands. */
export function count(value: number): string {
  return NUMBERS.format(value);
}

const TICKS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** The end or the half of a scale: `7.5`. */
export function tick(value: number): string {
  return TICKS.format(value);
}

/** Participant minutes of that many seconds; the last one begun counts. */
export function minutes(seconds: number): string {
  return count(Math.ceil(seconds / 60));
}

/** `1.2 GB`, in thousands. */
export function bytes(value: number): string {
  return inThousands(value, ["B", "kB", "MB", "GB", "TB", "PB"]);
}

function inThousands(value: number, units: readonly string[]): string {
  let unit = 0;
  let shown = value;
  while (shown >= 999.5 && unit < units.length - 1) {
    shown /= 1000;
    unit += 1;
  }
  return `${shown >= 9.95 || unit === 0 ? Math.round(shown) : shown.toFixed(1)} ${units[unit]}`;
}

/** `1.2 Mbit/s`, in thousands. */
export function rate(bitsPerSecond: number): string {
  return inThousands(bitsPerSecond, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
}

/** A share of 0 to 1. */
export function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)} %`;
}

export function milliseconds(seconds: number): string {
  return `${Math.round(seconds * 1000)} ms`;
}

/** What a form's local time says, in milliseconds since 1970; nothing where it says none. */
export function fromField(text: string): number | undefined {
  const at = text ? new Date(text).getTime() : NaN;
  return Number.isNaN(at) ? undefined : at;
}

/** For a field of the type datetime-local. */
export function toField(at: number): string {
  return localTime(at).replace(" ", "T");
}
