/** An event that carries a typed `detail`. */
export type TypedEvent<Detail> = CustomEvent<Detail>;

/** An `EventTarget` whose event names and details the compiler knows. */
export class TypedEvents<Map extends object> extends EventTarget {
  /** Calls `listener` with the detail of each event; the returned function stops it. */
  on<Name extends keyof Map & string>(
    name: Name,
    listener: (detail: Map[Name]) => void,
    options?: AddEventListenerOptions,
  ): () => void {
    const wrapped = (event: Event) => listener((event as CustomEvent<Map[Name]>).detail);
    super.addEventListener(name, wrapped, options);
    return () => super.removeEventListener(name, wrapped, options);
  }

  override addEventListener<Name extends keyof Map & string>(
    name: Name,
    listener: ((event: TypedEvent<Map[Name]>) => void) | EventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void {
    super.addEventListener(name, listener as EventListener, options);
  }

  override removeEventListener<Name extends keyof Map & string>(
    name: Name,
    listener: ((event: TypedEvent<Map[Name]>) => void) | EventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void {
    super.removeEventListener(name, listener as EventListener, options);
  }

  /** @internal */
  emit<Name extends keyof Map & string>(name: Name, detail: Map[Name]): void {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
