// The screens as JupyterLab's widgets.
import { LabIcon } from "@jupyterlab/ui-components";
import type { Message } from "@lumino/messaging";
import { Widget } from "@lumino/widgets";
import { type AuditState, atLeast, type Home, mountAudit, mountRuns, mountSidebar, pendingCount, w } from "../ui/home";

/** A cylinder, as databases are drawn, with a pulse in it; its colour follows the theme. */
export const opsIcon = new LabIcon({
  name: "opsagent:icon",
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 16 16"><g class="jp-icon3 jp-icon-selectable" fill="#616161"><path d="M8 1C4.7 1 2 2.1 2 3.5v9C2 13.9 4.7 15 8 15s6-1.1 6-2.5v-9C14 2.1 11.3 1 8 1zm0 1.2c2.9 0 4.8.9 4.8 1.3S10.9 4.8 8 4.8 3.2 3.9 3.2 3.5 5.1 2.2 8 2.2zm0 11.6c-2.9 0-4.8-.9-4.8-1.3V10h2.6l1-1.7 1.7 3.2 1.5-2.3h2.8v3.3c0 .4-1.9 1.3-4.8 1.3zm4.8-5.7H9.4l-.8 1.3-1.8-3.3L5.2 8.9H3.2V5.2C4.3 5.7 6 6 8 6s3.7-.3 4.8-.8z"/></g></svg>`,
});

export class SidebarWidget extends Widget {
  private readonly unmount: () => void;

  constructor(home: Home) {
    super();
    this.id = "opsagent-sidebar";
    this.title.icon = opsIcon;
    this.title.caption = w("page.launcher");
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", w("page.launcher"));
    this.addClass("oa-sidebar-widget");
    this.unmount = mountSidebar(this.node, home);
  }

  override dispose(): void {
    if (!this.isDisposed) this.unmount();
    super.dispose();
  }

  protected override onActivateRequest(_: Message): void {
    if (this.node.contains(document.activeElement)) return;
    this.node.querySelector<HTMLElement>('[role="tab"][aria-selected="true"]')?.focus();
  }
}

let audits = 0;

export class AuditWidget extends Widget {
  state: Partial<AuditState>;
  private readonly unmount: () => void;

  constructor(home: Home, start: Partial<AuditState>, onChange: (widget: AuditWidget) => void) {
    super();
    this.id = `opsagent-audit-${++audits}`;
    this.state = start;
    this.title.label = w("page.audit.short");
    this.title.icon = opsIcon;
    this.title.closable = true;
    this.addClass("oa-audit-widget");
    this.unmount = mountAudit(this.node, home, start, (state) => {
      this.state = state;
      onChange(this);
    });
  }

  override dispose(): void {
    if (!this.isDisposed) this.unmount();
    super.dispose();
  }

  protected override onActivateRequest(_: Message): void {
    if (!this.node.contains(document.activeElement)) this.node.querySelector<HTMLElement>("input")?.focus();
  }
}

export class RunsWidget extends Widget {
  private readonly unmount: () => void;

  constructor(home: Home) {
    super();
    this.id = "opsagent-runs";
    this.title.label = w("page.runs.short");
    this.title.icon = opsIcon;
    this.title.closable = true;
    this.addClass("oa-audit-widget");
    this.node.tabIndex = -1;
    this.unmount = mountRuns(this.node, home);
  }

  override dispose(): void {
    if (!this.isDisposed) this.unmount();
    super.dispose();
  }

  protected override onActivateRequest(_: Message): void {
    this.node.focus();
  }
}

/** How many requests wait, in the status bar; a click shows them. */
export class StatusWidget extends Widget {
  private readonly stop: () => void;

  constructor(home: Home, onOpen: () => void) {
    super();
    const { line, store } = home.desk;
    const button = document.createElement("button");
    button.type = "button";
    button.title = w("page.status.title");
    button.addEventListener("click", onOpen);
    this.node.append(button);
    this.addClass("oa-status");
    // a reader of the screen hears the count change, wherever the focus is
    this.node.setAttribute("role", "status");
    const write = () => {
      const { approvals, crowded } = store.state();
      const count = pendingCount(approvals);
      const lost = line.now().state === "lost";
      const text = lost
        ? w("page.status.lost")
        : w(count ? "page.status" : "page.status.none", { n: atLeast(count, crowded) });
      if (button.textContent !== text) button.textContent = text;
      this.toggleClass("oa-status-waiting", count > 0 && !lost);
    };
    const stops = [line.watch(write), store.watch(write)];
    this.stop = () => {
      for (const stop of stops) stop();
    };
    write();
  }

  override dispose(): void {
    if (!this.isDisposed) this.stop();
    super.dispose();
  }
}
