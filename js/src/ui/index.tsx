// The one component set: any host that has an element and a client can show it.
import { render } from "preact";
import type { Client } from "../client";
import { App, type Options } from "./app";

export type { Options, View } from "./app";
export { type Key, type Translation, t, translate } from "./strings";

/** Draws a view into an element; the returned function takes it away and tells Python. */
export function mount(element: HTMLElement, client: Client, options: Options): () => void {
  element.classList.add("oa-root");
  render(<App client={client} options={options} />, element);
  return () => render(null, element);
}
