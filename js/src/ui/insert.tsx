// Puts a command of the conversation into a notebook, where there is one beside the screen.
import { visible } from "./exact";
import { useScreen } from "./screen";
import { t } from "./strings";

/** ``command`` is what follows `%opsagent`; nothing runs until the person runs the cell. */
export function Insert({ command }: { command: string }) {
  const { insert } = useScreen();
  if (!insert) return null;
  const code = `%opsagent ${command}`;
  return (
    <p>
      <button type="button" class="oa-quiet" title={visible(t("insert.title", { code }))} onClick={() => insert(code)}>
        {t("insert")}
      </button>
    </p>
  );
}
