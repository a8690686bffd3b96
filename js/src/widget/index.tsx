// The widget of a notebook cell, as anywidget loads it.
import type { AnyModel, Render } from "@anywidget/types";
import { render as draw } from "preact";
import { mount, type View } from "../ui";
import { type Channel, connect } from "./comm";
import { Detached, type Summary } from "./detached";
import { twoDoors } from "./doors";
import { serverLine } from "./page";

/** The synced traits: an id and a redacted summary, nothing that may not stand in a saved notebook. */
interface Traits {
  kind: "chat" | "turn" | "approval" | "approvals";
  id: string;
  summary: Summary;
  version: string;
}

/** After this long without a word from Python the saved summary is shown, in milliseconds. */
const PATIENCE = 5000;

/** A turn's id is its session's and its own, with a slash between. */
function viewOf(model: AnyModel<Traits>): View {
  const id = model.get("id");
  const [session = "", turn = ""] = id.split("/");
  switch (model.get("kind")) {
    case "approval":
      return { kind: "approval", id };
    case "turn":
      return { kind: "turn", session, turn };
    case "approvals":
      return { kind: "approvals" };
    default:
      return { kind: "chat", session: id };
  }
}

/** Hides the static record of a cell while its live view is there; without a view the record speaks. */
function markLive(element: HTMLElement, isLive: boolean): void {
  element.closest(".jp-OutputArea")?.classList.toggle("oa-live", isLive);
}

/** Acts as soon as an element is in the page: a host may draw a widget before it puts it there. */
function whenShown(element: HTMLElement, act: () => void): () => void {
  const look = () => {
    if (!element.isConnected) return;
    clearInterval(timer);
    act();
  };
  const timer = setInterval(look, 50);
  look();
  return () => clearInterval(timer);
}

const render: Render<Traits> = ({ model, el }) => {
  const client = twoDoors(connect(model as unknown as Channel), () => serverLine(model.get("version")));
  const root = document.createElement("div");
  el.append(root);
  const open = () => mount(root, client, { view: viewOf(model), version: model.get("version") });
  let close = open();
  let isDetached = false;
  let stopLooking = () => {};

  const silence = setTimeout(() => {
    close();
    draw(<Detached kind={model.get("kind")} summary={model.get("summary")} />, root);
    close = () => draw(null, root);
    isDetached = true;
  }, PATIENCE);
  const stopListening = client.subscribe(() => {
    stopListening();
    clearTimeout(silence);
    stopLooking = whenShown(root, () => markLive(root, true));
    if (!isDetached) return;
    close();
    close = open();
  });

  return () => {
    clearTimeout(silence);
    stopListening();
    stopLooking();
    markLive(root, false);
    close();
    client.close();
    root.remove();
  };
};

export default { render };
