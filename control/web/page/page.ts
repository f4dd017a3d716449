import {
  type CaptureSource,
  type LocalPublication,
  type Scope,
  type Source,
  Strait,
  StraitError,
} from "../sdk/index.js";
import { figures } from "./figures.js";
import { Histories, point } from "./graphs.js";
import { type Call, defaults, forget, recall, remember } from "./memory.js";
import { Sound } from "./sound.js";
import { Tiles, tileViews } from "./tiles.js";

declare global {
  interface Window {
    /** The scope that this page is in, for tests and for the curious. */
    strait: Scope | undefined;
  }
}

const element = <Type extends HTMLElement>(id: string): Type => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as Type;
};

const lobby = element("lobby");
const callView = element("call");
const stateLine = element("state");
const controls = {
  microphone: element<HTMLButtonElement>("microphone"),
  camera: element<HTMLButtonElement>("camera"),
  screen: element<HTMLButtonElement>("screen"),
  statistics: element<HTMLButtonElement>("statistics"),
  leave: element<HTMLButtonElement>("leave"),
};
const tiles = new Tiles(element("tiles"), element<HTMLTemplateElement>("tile"));
const sound = new Sound(() => (element("listen").hidden = false));

let scope: Scope | undefined;
let current: Call = defaults();
let withStatistics = false;
const histories = new Histories();

// -- the lobby ----------------------------------------------------------------------------

function fillForm(call: Call): void {
  element<HTMLInputElement>("scope").value = call.scope;
  element<HTMLInputElement>("name").value = call.name;
  element<HTMLInputElement>("token").value = call.token;
  element<HTMLInputElement>("with-microphone").checked = call.microphone;
  element<HTMLInputElement>("with-camera").checked = call.camera;
}

function readForm(): Call {
  return {
    scope: element<HTMLInputElement>("scope").value.trim(),
    name: element<HTMLInputElement>("name").value.trim(),
    token: element<HTMLInputElement>("token").value.trim(),
    microphone: element<HTMLInputElement>("with-microphone").checked,
    camera: element<HTMLInputElement>("with-camera").checked,
  };
}

element<HTMLFormElement>("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void join(readForm());
});

async function join(call: Call): Promise<void> {
  const button = element<HTMLButtonElement>("join");
  button.disabled = true;
  button.textContent = "Joining…";
  element("lobby-error").hidden = true;
  current = call;
  let tracks: MediaStreamTrack[] = [];
  let deviceError: unknown;
  const devices: CaptureSource[] = [];
  if (call.microphone) devices.push("microphone");
  if (call.camera) devices.push("camera");
  try {
    // Without a device one can still watch and listen.
    if (devices.length > 0) tracks = await Strait.capture(devices).catch(rememberError);
    const joined = await Strait.join({
      scope: call.scope,
      name: call.name,
      token: call.token,
      publish: tracks,
      publishOptions: { quality: "high" },
    });
    enter(joined, call);
    if (deviceError) complain(deviceError);
  } catch (error) {
    for (const track of tracks) track.stop();
    forget();
    showLobby(readable(error));
  } finally {
    button.disabled = false;
    button.textContent = "Join";
  }

  function rememberError(error: unknown): MediaStreamTrack[] {
    deviceError = error;
    return [];
  }
}

function showLobby(error?: string): void {
  callView.hidden = true;
  lobby.hidden = false;
  const line = element("lobby-error");
  line.hidden = error === undefined;
  line.textContent = error ?? "";
}

// -- the call -----------------------------------------------------------------------------

function enter(joined: Scope, call: Call): void {
  scope = window.strait = joined;
  remember(call);
  lobby.hidden = true;
  callView.hidden = false;
  element("call-error").hidden = true;
  element("listen").hidden = true;
  element("scope-name").textContent = joined.name;
  document.title = `${joined.name} · Strait`;
  // `ended`: a device that went away, or a screen share ended in the browser's own bar.
  const changes = [
    "joined", "left", "published", "unpublished", "muted", "unmuted", "track", "ended",
  ];
  for (const name of changes as ("joined" | "left" | "track")[]) joined.on(name, render);
  for (const name of ["speaking", "dominantspeaker"] as const) joined.on(name, render);
  for (const name of ["connected", "reconnecting", "reconnected", "connectiontype"] as const) {
    joined.on(name, render);
  }
  joined.watchQuality(withStatistics);
  joined.on("error", ({ error }) => complain(error));
  joined.on("closed", ({ error }) => exit(joined, error));
  render();
  controls.microphone.focus();
}

function exit(left: Scope, error: StraitError | undefined): void {
  if (scope !== left) return;
  scope = window.strait = undefined;
  // A reload closes the scope too, and must find what to come back to.
  if (error) forget();
  tiles.clear();
  histories.clear();
  sound.clear();
  document.title = "Strait";
  showLobby(error && readable(error));
  element("join").focus();
}

const STATES = {
  joining: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Left",
};

function render(): void {
  if (!scope) return;
  const views = tileViews(scope, current.name);
  tiles.show(views);
  sound.show(scope);
  stateLine.dataset["state"] = scope.state;
  const isDirect = scope.state === "connected" && scope.connectionType === "p2p";
  const state = isDirect ? "Connected directly" : STATES[scope.state];
  if (stateLine.textContent !== state) stateLine.textContent = state;
  const count = scope.peers.size + 1;
  element("people").textContent = count === 1 ? "only you" : `${count} people`;
  press(controls.microphone, live("microphone"));
  press(controls.camera, live("camera"));
  press(controls.screen, find("screen") !== undefined);
  press(controls.statistics, withStatistics);
}

function press(button: HTMLButtonElement, pressed: boolean): void {
  button.setAttribute("aria-pressed", String(pressed));
}

function find(source: Source): LocalPublication | undefined {
  return scope?.publications.find((publication) => publication.source === source);
}

function live(source: Source): boolean {
  const publication = find(source);
  return publication !== undefined && !publication.muted;
}

async function toggle(source: "microphone" | "camera"): Promise<void> {
  const publication = find(source);
  if (!publication) await scope?.publish(source, { quality: "high" });
  else if (publication.muted) publication.unmute();
  else publication.mute();
  current = { ...current, [source]: live(source) };
  remember(current);
}

async function toggleScreen(): Promise<void> {
  const shared = scope?.publications.filter((each) => each.source.startsWith("screen")) ?? [];
  if (shared.length > 0) await Promise.all(shared.map((each) => each.unpublish()));
  else await scope?.publish("screen");
}

function onClick(button: HTMLButtonElement, action: () => Promise<void>): void {
  button.addEventListener("click", () => {
    button.disabled = true;
    action()
      .catch(complain)
      .finally(() => {
        button.disabled = false;
        render();
      });
  });
}

onClick(controls.microphone, () => toggle("microphone"));
onClick(controls.camera, () => toggle("camera"));
onClick(controls.screen, toggleScreen);
onClick(controls.leave, async () => {
  forget();
  await scope?.leave();
});
onClick(controls.statistics, async () => {
  withStatistics = !withStatistics;
  scope?.watchQuality(withStatistics);
  // The first figures are no second's: graphs begin with the next.
  await showStatistics(false);
});

async function showStatistics(isSecond: boolean): Promise<void> {
  if (!scope) return;
  const statistics = withStatistics ? await scope.statistics() : undefined;
  if (!scope) return;
  const views = tileViews(scope, current.name);
  if (!statistics) histories.clear();
  else if (isSecond) {
    const points = views.map((each) => [each.key, point(each, statistics)] as const);
    histories.add(new Map(points));
  }
  for (const view of views) {
    tiles.setFigures(view.key, statistics && figures(view, statistics));
    tiles.setGraphs(view.key, statistics && histories.of(view.key));
  }
}

setInterval(() => {
  if (withStatistics) showStatistics(true).catch(() => {});
}, 1_000);

element("listen-button").addEventListener("click", () => {
  element("listen").hidden = true;
  sound.resume();
});

// -- errors -------------------------------------------------------------------------------

function readable(error: unknown): string {
  if (!(error instanceof StraitError)) return String(error);
  if (error.code === 401 && current.token === "") return "Enter a token.";
  if (error.code === 401) return `The server does not accept this token (${error.reason}).`;
  if (error.code === 403) return `This token does not allow it (${error.reason}).`;
  if (error.code === 503) return `The server is not ready (${error.reason}). Try again shortly.`;
  return sentence(error.reason);
}

function sentence(text: string): string {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}

function complain(error: unknown): void {
  element("call-error-text").textContent = readable(error);
  element("call-error").hidden = false;
}

element("call-error-close").addEventListener("click", () => {
  element("call-error").hidden = true;
});

// -- the start ----------------------------------------------------------------------------

const asked = new URLSearchParams(location.search).get("scope");
const before = recall();
// A reload comes back into the call; another address asks anew.
if (before && (asked === null || asked === before.scope)) {
  fillForm(before);
  void join(before);
} else {
  fillForm(current);
}
