// The JupyterLab extension: sidebar, audit, status bar, commands, launcher. It has no part in any decision: it carries what
// a person does to the server, and shows what the server says.
import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, Notification, WidgetTracker } from "@jupyterlab/apputils";
import { ILauncher } from "@jupyterlab/launcher";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { IStatusBar } from "@jupyterlab/statusbar";
import { ITranslator } from "@jupyterlab/translation";
import type { AuditFilter } from "../client/rest";
import type { Approval } from "../protocol";
import { type AuditState, type Home, translate, w } from "../ui/home";
import { announceArrivals } from "./arrivals";
import { connectHome } from "./connection";
import { aboutActiveCell, insertCell, openNotebook } from "./notebook";
import { AuditWidget, opsIcon, RunsWidget, SidebarWidget, StatusWidget } from "./widgets";

const PLUGIN = "opsagent-jupyter:plugin";
const CATEGORY = "OpsAgent";

const COMMANDS = {
  open: "opsagent:open",
  chat: "opsagent:new-chat",
  attach: "opsagent:servers",
  waiting: "opsagent:waiting",
  audit: "opsagent:audit",
  runs: "opsagent:runs",
  ask: "opsagent:ask-about-cell",
} as const;

const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN,
  description: "Sidebar, approval queue and audit of OpsAgent.",
  autoStart: true,
  requires: [ITranslator],
  optional: [ICommandPalette, ILauncher, ILayoutRestorer, IStatusBar, ISettingRegistry],
  activate,
};

export default plugin;

function activate(
  app: JupyterFrontEnd,
  translator: ITranslator,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  restorer: ILayoutRestorer | null,
  statusBar: IStatusBar | null,
  registry: ISettingRegistry | null,
): void {
  const trans = translator.load("opsagent_jupyter");
  translate((english) => trans.gettext(english));
  const home = connectHome(app.serviceManager.serverSettings, {
    openAudit: (filter?: AuditFilter) =>
      void app.commands.execute(COMMANDS.audit, filter ? { filter: { ...filter } } : {}),
    openNotebook: (cells) => void openNotebook(app, cells),
    insert: (code) => void insertCell(app, code),
  });

  const sidebar = new SidebarWidget(home);
  app.shell.add(sidebar, "right", { rank: 700, type: "OpsAgent" });
  restorer?.add(sidebar, sidebar.id);

  addCommands(app, home, sidebar, restorer);
  for (const command of Object.values(COMMANDS)) palette?.addItem({ command, category: CATEGORY });
  launcher?.add({ command: COMMANDS.open, category: "Other", rank: 20 });
  launcher?.add({ command: COMMANDS.audit, category: "Other", rank: 21 });
  const status = new StatusWidget(home, () => void app.commands.execute(COMMANDS.waiting));
  statusBar?.registerStatusItem(`${PLUGIN}:status`, { item: status, align: "right", rank: 100 });
  announceArrivals(home.desk, {
    board: Notification,
    isWanted: wantsToasts(registry),
    isShown: (approval) => isShown(sidebar, home, approval),
    open: (args) => void app.commands.execute(COMMANDS.waiting, args),
  });
}

/** Shows the sidebar wherever the person has put it. */
function show(app: JupyterFrontEnd, sidebar: SidebarWidget): void {
  app.shell.activateById(sidebar.id);
}

function addCommands(app: JupyterFrontEnd, home: Home, sidebar: SidebarWidget, restorer: ILayoutRestorer | null): void {
  const { way } = home.desk;
  const { commands } = app;
  commands.addCommand(COMMANDS.open, {
    label: (args) => w(args.isPalette ? "page.open" : "page.launcher"),
    caption: w("page.open"),
    icon: (args) => (args.isPalette ? undefined : opsIcon),
    execute: () => show(app, sidebar),
  });
  commands.addCommand(COMMANDS.chat, {
    label: w("page.chat"),
    execute: async () => {
      const session = await home.desk.api.begin("", "");
      home.desk.store.learn({ type: "chat:session", seq: 0, session });
      show(app, sidebar);
      way.go({ tab: "chats", session: session.id });
    },
  });
  commands.addCommand(COMMANDS.attach, {
    label: w("page.attach"),
    execute: () => {
      show(app, sidebar);
      way.go({ tab: "servers" });
    },
  });
  commands.addCommand(COMMANDS.waiting, {
    label: w("page.waiting"),
    execute: (args) => {
      show(app, sidebar);
      way.go({ tab: "waiting", approval: typeof args.id === "string" ? args.id : "" });
    },
  });
  commands.addCommand(COMMANDS.ask, {
    label: w("page.ask.cell"),
    icon: opsIcon,
    isEnabled: () => aboutActiveCell(app) !== "",
    execute: () => askAbout(app, home, sidebar),
  });
  addAudit(app, home, restorer);
  addRuns(app, home, sidebar, restorer);
}

/** One panel of all runs; the request of a waiting step opens in the sidebar. */
function addRuns(app: JupyterFrontEnd, home: Home, sidebar: SidebarWidget, restorer: ILayoutRestorer | null): void {
  const tracker = new WidgetTracker<RunsWidget>({ namespace: "opsagent-runs" });
  app.commands.addCommand(COMMANDS.runs, {
    label: (args) => w(args.isPalette ? "page.runs" : "page.runs.short"),
    caption: w("page.runs"),
    icon: (args) => (args.isPalette ? undefined : opsIcon),
    execute: () => {
      let runs = tracker.find((widget) => !widget.isDisposed);
      if (!runs) {
        runs = new RunsWidget(home);
        runs.node.addEventListener("click", (event) => {
          if (event.target instanceof HTMLButtonElement) show(app, sidebar);
        });
        void tracker.add(runs);
        app.shell.add(runs, "main", { type: "OpsAgent Runs" });
        // a page of Notebook 7 has one document in its main area, and no room for another
        if (!runs.isAttached) app.shell.add(runs, "down", { type: "OpsAgent Runs" });
      }
      app.shell.activateById(runs.id);
    },
  });
  void restorer?.restore(tracker, { command: COMMANDS.runs, name: (widget) => widget.id });
}

/** The cell's source goes into the message box, for the person to send or not; its rows stay where they are. */
async function askAbout(app: JupyterFrontEnd, home: Home, sidebar: SidebarWidget): Promise<void> {
  const draft = aboutActiveCell(app);
  if (!draft) return;
  const { way, api, store } = home.desk;
  if (!way.place().session) {
    const session = await api.begin("", "");
    store.learn({ type: "chat:session", seq: 0, session });
    way.go({ session: session.id });
  }
  show(app, sidebar);
  way.go({ tab: "chats", draft });
}

function addAudit(app: JupyterFrontEnd, home: Home, restorer: ILayoutRestorer | null): void {
  const tracker = new WidgetTracker<AuditWidget>({ namespace: "opsagent-audit" });
  app.commands.addCommand(COMMANDS.audit, {
    label: (args) => w(args.isPalette ? "page.audit" : "page.audit.short"),
    caption: w("page.audit"),
    icon: (args) => (args.isPalette ? undefined : opsIcon),
    execute: (args) => {
      const held = tracker.find((widget) => !widget.isDisposed);
      if (held && !args.filter) return app.shell.activateById(held.id);
      held?.dispose();
      const audit = new AuditWidget(home, args as Partial<AuditState>, (widget) => void tracker.save(widget));
      void tracker.add(audit);
      app.shell.add(audit, "main", { type: "OpsAgent Audit" });
      // a page of Notebook 7 has one document in its main area, and no room for another
      if (!audit.isAttached) app.shell.add(audit, "down", { type: "OpsAgent Audit" });
      app.shell.activateById(audit.id);
    },
  });
  void restorer?.restore(tracker, {
    command: COMMANDS.audit,
    args: (widget) => ({ ...widget.state }) as never,
    name: (widget) => widget.id,
  });
}

function wantsToasts(registry: ISettingRegistry | null): () => boolean {
  let wanted = true;
  void registry?.load(PLUGIN).then((settings) => {
    const read = () => {
      wanted = settings.get("toasts").composite !== false;
    };
    read();
    settings.changed.connect(read);
  });
  return () => wanted;
}

/** Whether the person sees the request as it arrives: then it needs no toast. */
function isShown(sidebar: SidebarWidget, home: Home, approval: Approval): boolean {
  const { tab, session } = home.desk.way.place();
  return sidebar.isVisible && (tab === "waiting" || (tab === "chats" && session === approval.session));
}
