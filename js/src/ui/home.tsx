// The screens of a page with a server: the sidebar and the audit, over one store.
import { type ComponentChildren, render } from "preact";
import { AuditPanel, type AuditState } from "./audit";
import { type Desk, DeskContext } from "./desk";
import { Frame } from "./frame";
import { RunsPanel } from "./runs";
import { Sidebar } from "./sidebar";

export { atLeast } from "./approvals";
export type { AuditState } from "./audit";
export type { Desk, Page } from "./desk";
export { createWay, type Way } from "./place";
export { pendingCount } from "./sidebar";
export { t, translate } from "./strings";
export { w } from "./wording";

export interface Home {
  desk: Desk;
  /** The release of these screens. */
  version: string;
  insert(code: string): void;
}

export function mountSidebar(element: HTMLElement, home: Home): () => void {
  return mount(element, home, <Sidebar />);
}

export function mountRuns(element: HTMLElement, home: Home): () => void {
  return mount(element, home, <RunsPanel />);
}

export function mountAudit(
  element: HTMLElement,
  home: Home,
  start: Partial<AuditState>,
  onChange: (state: AuditState) => void,
): () => void {
  return mount(element, home, <AuditPanel start={start} onChange={onChange} />);
}

function mount(element: HTMLElement, { desk, version, insert }: Home, screen: ComponentChildren): () => void {
  element.classList.add("oa-root");
  render(
    <DeskContext.Provider value={desk}>
      <Frame store={desk.store} version={version} insert={insert}>
        {screen}
      </Frame>
    </DeskContext.Provider>,
    element,
  );
  return () => render(null, element);
}
