// The form that attaches a database. What is typed as a password is sent once; nothing here ever shows a stored one.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { PluginKind } from "../client/rest";
import type { Instance } from "../protocol";
import { useAsked, useDeed, useDesk } from "./desk";
import { visible } from "./exact";
import { Refused } from "./refused";
import { keepKeys, useScreen } from "./screen";
import { t } from "./strings";
import { Exact } from "./text";
import { type Word, w } from "./wording";

interface Form {
  plugin: string;
  name: string;
  server: string;
  environment: Instance["environment"];
  readOnly: boolean;
  how: "fields" | "dsn";
  host: string;
  port: string;
  database: string;
  user: string;
  password: string;
  dsn: string;
}

export const EMPTY_FORM: Form = {
  plugin: "postgresql",
  name: "",
  server: "",
  environment: "production",
  readOnly: false,
  how: "fields",
  host: "localhost",
  port: "",
  database: "",
  user: "",
  password: "",
  dsn: "",
};

const PORTS: Record<string, string> = { postgresql: "5432", mongodb: "27017" };
const ENVIRONMENTS: Instance["environment"][] = ["production", "staging", "development"];

/** The connection string of the fields; every part is escaped, so that none can become another. */
export function connectionString(form: Form): string {
  if (form.how === "dsn") return form.dsn.trim();
  const user = encodeURIComponent(form.user);
  const password = form.password && `:${encodeURIComponent(form.password)}`;
  const host = form.host.includes(":") ? `[${form.host}]` : encodeURIComponent(form.host);
  const at = user || password ? `${user}${password}@` : "";
  const port = form.port || PORTS[form.plugin];
  return `${form.plugin}://${at}${host}${port ? `:${port}` : ""}/${encodeURIComponent(form.database)}`;
}

/** The fields that still have to be filled. */
function missing(form: Form): Word[] {
  const needed: [Word, string][] = [
    ["attach.name", form.name],
    ["attach.server", form.server],
    ...(form.how === "dsn"
      ? ([["attach.dsn", form.dsn]] as [Word, string][])
      : ([
          ["attach.host", form.host],
          ["attach.database", form.database],
        ] as [Word, string][])),
  ];
  return needed.filter(([, value]) => !value.trim()).map(([word]) => word);
}

/** Sets one field of the form. */
type Set = <K extends keyof Form>(field: K) => (value: Form[K]) => void;

interface Part {
  form: Form;
  set: Set;
}

export function AttachForm({ onClose }: { onClose(): void }) {
  const { api } = useDesk();
  const [form, setForm] = useState(EMPTY_FORM);
  const [complaint, setComplaint] = useState("");
  const kinds = useAsked(() => api.plugins(), []);
  const attaching = useAttaching(form, () => {
    setForm(EMPTY_FORM);
    onClose();
  });
  const set: Set = (field) => (value) => setForm((before) => ({ ...before, [field]: value }));
  const submit = (event: Event) => {
    event.preventDefault();
    const lacking = missing(form).map((word) => w(word));
    setComplaint(lacking.length ? w("attach.missing", { names: lacking.join(", ") }) : "");
    if (!lacking.length) attaching.start();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    keepKeys(event);
    if (event.key === "Escape") onClose();
  };
  return (
    <form class="oa-form" aria-label={w("attach.title")} autocomplete="off" onSubmit={submit} onKeyDown={onKeyDown}>
      <h2>{w("attach.title")}</h2>
      <Kind form={form} set={set} kinds={kinds.value ?? []} />
      <Names form={form} set={set} />
      <Connection form={form} set={set} />
      <p class="oa-muted oa-small oa-wide">{w("attach.secret")}</p>
      <div class="oa-row oa-wide">
        <button type="submit" class="oa-small-button oa-primary" aria-busy={attaching.running}>
          {w(attaching.running ? "attach.sending" : "attach.send")}
        </button>
        <button type="button" class="oa-small-button" onClick={onClose}>
          {w("cancel")}
        </button>
      </div>
      <p class={complaint ? "oa-warn oa-wide" : "oa-empty"} role="alert">
        {complaint}
      </p>
      <div class="oa-wide">
        <Refused refusal={attaching.refusal ?? kinds.refusal} />
      </div>
    </form>
  );
}

/** Sends the form once; what was typed stays until it is done. */
function useAttaching(form: Form, onDone: () => void) {
  const { api, store } = useDesk();
  const { announce } = useScreen();
  const { running, refusal, start } = useDeed();
  const send = async () => {
    const { plugin, environment, readOnly } = form;
    const [name, server] = [form.name.trim(), form.server.trim()];
    const what = { plugin, name, environment, read_only: readOnly, dsn: connectionString(form) };
    const { instance, health } = await api.attach(server, what);
    store.learn(
      { type: "plugin:status", seq: 0, server, name, status: "attached", instance },
      { type: "plugin:health", seq: 0, health },
    );
    announce(w("attach.done", { name }));
    onDone();
  };
  return { running, refusal, start: () => start(send) };
}

function Kind({ form, set, kinds }: Part & { kinds: PluginKind[] }) {
  const chosen = kinds.find((kind) => kind.name === form.plugin);
  const names = kinds.length ? kinds.map((kind) => kind.name) : [form.plugin];
  return (
    <>
      <Choice
        label={w("attach.plugin")}
        value={form.plugin}
        options={names.map((name) => [name, name])}
        onChange={set("plugin")}
      />
      {chosen?.missing && (
        <p class="oa-warn">
          <Exact text={chosen.missing} />
        </p>
      )}
    </>
  );
}

function Names({ form, set }: Part) {
  const { servers } = useScreen().state;
  const first = useRef<HTMLInputElement>(null);
  useEffect(() => first.current?.focus(), []);
  return (
    <>
      <Text
        label={w("attach.name")}
        hint={w("attach.name.hint")}
        value={form.name}
        onInput={set("name")}
        field={first}
      />
      <Text
        label={w("attach.server")}
        hint={w("attach.server.hint")}
        value={form.server}
        onInput={set("server")}
        known={servers}
      />
      <Choice
        label={w("attach.environment")}
        value={form.environment}
        options={ENVIRONMENTS.map((name) => [name, t(`environment.${name}`)])}
        onChange={(value) => set("environment")(value as Form["environment"])}
      />
      <label class="oa-check">
        <input
          type="checkbox"
          checked={form.readOnly}
          onChange={(event) => set("readOnly")(event.currentTarget.checked)}
        />{" "}
        {w("attach.read.only")}
      </label>
    </>
  );
}

function Connection({ form, set }: Part) {
  return (
    <>
      <Choice
        label={w("attach.how")}
        value={form.how}
        options={[
          ["fields", w("attach.how.fields")],
          ["dsn", w("attach.how.dsn")],
        ]}
        onChange={(value) => set("how")(value as Form["how"])}
      />
      {form.how === "fields" ? (
        <>
          <Text label={w("attach.host")} value={form.host} onInput={set("host")} />
          <Text label={w("attach.port")} value={form.port} onInput={set("port")} hint={PORTS[form.plugin] ?? ""} />
          <Text label={w("attach.database")} value={form.database} onInput={set("database")} />
          <Text label={w("attach.user")} value={form.user} onInput={set("user")} />
          <Secret label={w("attach.password")} value={form.password} onInput={set("password")} />
        </>
      ) : (
        <Secret label={w("attach.dsn")} hint={w("attach.dsn.hint")} value={form.dsn} onInput={set("dsn")} />
      )}
    </>
  );
}

interface TextProps {
  label: string;
  value: string;
  onInput(value: string): void;
  hint?: string;
  /** Names that exist already, to choose from. */
  known?: string[];
  field?: { current: HTMLInputElement | null };
}

function Text({ label, value, onInput, hint = "", known = [], field }: TextProps) {
  const id = useId();
  return (
    <Labelled id={id} label={label}>
      <input
        id={id}
        ref={field}
        type="text"
        value={value}
        placeholder={hint}
        autocomplete="off"
        autocapitalize="off"
        spellcheck={false}
        list={known.length ? `${id}-known` : undefined}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      {known.length > 0 && (
        <datalist id={`${id}-known`}>
          {known.map((name) => (
            <option key={name} value={name}>
              {visible(name)}
            </option>
          ))}
        </datalist>
      )}
    </Labelled>
  );
}

/** A field whose text is not shown, and which the browser offers to fill with nothing that it keeps. */
function Secret({ label, value, onInput, hint = "" }: TextProps) {
  const id = useId();
  return (
    <Labelled id={id} label={label}>
      <input
        id={id}
        type="password"
        value={value}
        placeholder={hint}
        autocomplete="new-password"
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </Labelled>
  );
}

interface ChoiceProps {
  label: string;
  value: string;
  options: [string, string][];
  onChange(value: string): void;
}

function Choice({ label, value, options, onChange }: ChoiceProps) {
  const id = useId();
  return (
    <Labelled id={id} label={label}>
      <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([name, text]) => (
          <option key={name} value={name}>
            {visible(text)}
          </option>
        ))}
      </select>
    </Labelled>
  );
}

function Labelled({ id, label, children }: { id: string; label: string; children: ComponentChildren }) {
  return (
    <>
      <label for={id}>{label}</label>
      <div>{children}</div>
    </>
  );
}
