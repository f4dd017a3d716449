/** Making elements, and bringing those that are shown up to date. What is text stays text: nothing here parses HTML. */
export type Child = Node | string | number | null | undefined | false | readonly Child[];

/** Handlers are properties, so that `renew` can take them over. */
const HANDLERS = ["onclick", "onsubmit", "onchange"] as const;
type Handlers = Partial<Pick<HTMLElement, (typeof HANDLERS)[number]>>;
type Attributes = Handlers & { [name: string]: unknown };

/** An element with attributes (`true` is an empty one, `false` and `undefined` none) and children. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for pictures. */
export function s(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS(SVG, tag) as SVGElement;
  fill(element, attributes, children);
  return element;
}

function fill(element: Element, attributes: Attributes, children: readonly Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") Object.assign(element, { [name]: value });
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(name, String(value));
    }
  }
  append(element, children);
}

function append(element: Element, children: readonly Child[]): void {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false && child !== "") {
      element.append(child instanceof Node ? child : String(child));
    }
  }
}

/**
 * Makes `shown` what `fresh` is and keeps the elements that both have: who reads, types or has the focus in them goes
 * on. Siblings with `data-key` are the same where the key is; an element with `data-whole` is replaced when that changes.
 */
export function renew(shown: Element, fresh: Element): void {
  const focused = document.activeElement;
  update(shown, fresh);
  // Moving an element takes the focus from it.
  if (focused instanceof HTMLElement && focused.isConnected) {
    if (document.activeElement !== focused) focused.focus({ preventScroll: true });
  }
}

function update(shown: Element, fresh: Element): void {
  for (const name of shown.getAttributeNames()) {
    if (!fresh.hasAttribute(name) && !isTheReaders(shown, name)) shown.removeAttribute(name);
  }
  for (const name of fresh.getAttributeNames()) {
    const value = fresh.getAttribute(name) ?? "";
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  for (const name of HANDLERS) {
    Object.assign(shown, { [name]: (fresh as Element & Handlers)[name] ?? null });
  }
  if (!shown.matches("input, select, textarea")) updateChildren(shown, fresh);
}

function updateChildren(shown: Element, fresh: Element): void {
  const wanted = new Set([...fresh.children].map(keyOf));
  const known = new Map<string, Element>();
  for (const child of [...shown.children]) {
    const key = keyOf(child);
    if (key === undefined) continue;
    if (wanted.has(key)) known.set(key, child);
    else child.remove();
  }
  let at = shown.firstChild;
  for (const node of [...fresh.childNodes]) {
    const key = node instanceof Element ? keyOf(node) : undefined;
    const same = key === undefined ? (at && alike(at, node) ? at : null) : known.get(key);
    if (!same) {
      shown.insertBefore(node, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else shown.insertBefore(same, at);
    if (!(same instanceof Element) || !(node instanceof Element)) {
      if (same.nodeValue !== node.nodeValue) same.nodeValue = node.nodeValue;
    } else if (!node.hasAttribute("data-whole")) update(same, node);
    else if (node.getAttribute("data-whole") !== same.getAttribute("data-whole")) {
      replace(same, node);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function replace(shown: Element, fresh: Element): void {
  const open = [...shown.querySelectorAll("details")].map((each) => each.open);
  fresh.querySelectorAll("details").forEach((each, index) => (each.open = open[index] ?? false));
  const within = [...shown.querySelectorAll("[tabindex], summary")];
  const focused = document.activeElement ? within.indexOf(document.activeElement) : -1;
  shown.replaceWith(fresh);
  const again = [...fresh.querySelectorAll<HTMLElement>("[tabindex], summary")][focused];
  again?.focus({ preventScroll: true });
}

function alike(shown: Node, fresh: Node): boolean {
  if (shown instanceof Element && keyOf(shown) !== undefined) return false;
  return shown.nodeType === fresh.nodeType && shown.nodeName === fresh.nodeName;
}

function keyOf(element: Element): string | undefined {
  return element.getAttribute("data-key") ?? undefined;
}

/** What the reader changes: an update leaves it. */
function isTheReaders(element: Element, name: string): boolean {
  return name === "open" && element.matches("details, dialog");
}
