// What the extension does with notebooks, through JupyterLab's commands and the current widget's public model.
import type { JupyterFrontEnd } from "@jupyterlab/application";
import { visible } from "../ui/exact";
import { w } from "../ui/home";

/** What is used of a notebook that is open. */
interface OpenNotebook {
  content: { activeCell: Cell | null };
}

interface Cell {
  model: {
    type: string;
    sharedModel: { getSource(): string; setSource(text: string): void };
    outputs?: { toJSON(): { output_type: string; ename?: string; evalue?: string }[] };
  };
}

/** Longer sources are cut: a message has its limits, and so has a reader. */
const LONGEST = 8000;

function activeCell(app: JupyterFrontEnd): Cell | null {
  const current = app.shell.currentWidget as unknown as Partial<OpenNotebook> | null;
  return current?.content?.activeCell ?? null;
}

/** Words about the active cell: its source and the name of its error. Its results stay in the notebook. */
export function aboutActiveCell(app: JupyterFrontEnd): string {
  const cell = activeCell(app);
  const source = cell?.model.sharedModel.getSource().trim() ?? "";
  if (!cell || !source) return "";
  const error = cell.model.outputs?.toJSON().find((output) => output.output_type === "error");
  const lines = [w("page.about.cell"), "```", source.slice(0, LONGEST), "```"];
  if (error) lines.push(w("page.about.error", { name: visible(error.ename ?? ""), text: visible(error.evalue ?? "") }));
  return lines.join("\n");
}

/** A cell with this code below the active one; without a notebook a new one is opened. Nothing is run. */
export async function insertCell(app: JupyterFrontEnd, code: string): Promise<void> {
  if (!activeCell(app)) return openNotebook(app, ["%load_ext opsagent_jupyter", code]);
  await app.commands.execute("notebook:insert-cell-below");
  activeCell(app)?.model.sharedModel.setSource(code);
}

/** A new notebook beside the others of the server's root folder, with these code cells. */
export async function openNotebook(app: JupyterFrontEnd, cells: string[]): Promise<void> {
  const { contents, kernelspecs } = app.serviceManager;
  const { path } = await contents.newUntitled({ type: "notebook", path: "" });
  await kernelspecs.ready;
  const name = kernelspecs.specs?.default ?? "python3";
  const content = {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: { kernelspec: { name, display_name: kernelspecs.specs?.kernelspecs[name]?.display_name ?? name } },
    cells: cells.map((source, index) => ({
      cell_type: "code",
      id: `opsagent-${index}`,
      metadata: {},
      execution_count: null,
      outputs: [],
      source,
    })),
  };
  await contents.save(path, { type: "notebook", format: "json", content });
  await app.commands.execute("docmanager:open", { path });
}
