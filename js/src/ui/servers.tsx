// What is attached: servers, their databases, and how each answered when it was last asked.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Health, Instance } from "../protocol";
import { AttachForm } from "./attach";
import { useAsked, useDeed, useDesk, usePlace } from "./desk";
import { visible } from "./exact";
import { Lines, Pairs } from "./facts";
import { clock, duration } from "./format";
import { Refused } from "./refused";
import { useScreen } from "./screen";
import { EnvironmentBadge, Exact, Fact, RiskBadge } from "./text";
import { w } from "./wording";

/** What is known arrives with the list; after this long it is asked for, in milliseconds. */
const PATIENCE = 500;

export function Servers() {
  const { state } = useScreen();
  const [attaching, setAttaching] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const instances = Object.values(state.instances);
  const servers = [...new Set([...state.servers, ...instances.map((instance) => instance.server)])].sort();
  const close = () => {
    setAttaching(false);
    requestAnimationFrame(() => opener.current?.focus());
  };
  if (attaching) return <AttachForm onClose={close} />;
  return (
    <section class="oa-servers" aria-label={w("servers.label")}>
      {instances.length === 0 && servers.length === 0 && (
        <div class="oa-empty-state">
          <p>{w("servers.none")}</p>
          <p class="oa-muted">{w("servers.none.hint")}</p>
        </div>
      )}
      {servers.map((server) => (
        <Server key={server} name={server} instances={instances.filter((one) => one.server === server)} />
      ))}
      <p>
        <button type="button" ref={opener} class="oa-small-button" onClick={() => setAttaching(true)}>
          + {w("servers.attach")}
        </button>
      </p>
    </section>
  );
}

function Server({ name, instances }: { name: string; instances: Instance[] }) {
  return (
    <section class="oa-server" aria-label={visible(name)}>
      <h2>
        <Exact text={name} />
      </h2>
      {instances.length === 0 && <p class="oa-muted oa-small">{w("servers.empty")}</p>}
      <ul>
        {instances
          .sort((a, b) => a.name.localeCompare(b.name))
          .map((instance) => (
            <li key={instance.id}>
              <InstanceLine instance={instance} />
            </li>
          ))}
      </ul>
    </section>
  );
}

function InstanceLine({ instance }: { instance: Instance }) {
  const { state } = useScreen();
  const [open, setOpen] = useState(false);
  const health = state.health[instance.name];
  useFirstHealth(instance, health);
  return (
    <div class="oa-instance">
      <button type="button" class="oa-instance-head" aria-expanded={open} onClick={() => setOpen(!open)}>
        <HealthDot health={health} />
        <span class="oa-name">
          <Exact text={instance.name} />
        </span>
        <EnvironmentBadge environment={instance.environment} />
        {instance.read_only && <span class="oa-env">{w("instance.read.only")}</span>}
        <span class="oa-grow oa-muted oa-small oa-ellipsis oa-right">
          <Exact text={line(instance, health)} />
        </span>
      </button>
      {health && !health.ok && !open && (
        <p class="oa-instance-problem oa-small">
          <Exact text={health.summary} />
        </p>
      )}
      {open && <InstanceDetails instance={instance} health={health} />}
    </div>
  );
}

/** The server asks regularly; what is new is asked at once. */
function useFirstHealth(instance: Instance, health: Health | undefined): void {
  const { api, store } = useDesk();
  const asked = health !== undefined;
  useEffect(() => {
    if (asked) return;
    const timer = setTimeout(() => {
      api.health(instance).then(
        (answer) => store.learn({ type: "plugin:health", seq: 0, health: answer }),
        () => {}, // it stays "not asked yet"; Test says why
      );
    }, PATIENCE);
    return () => clearTimeout(timer);
  }, [instance.id, asked]);
}

/** "PostgreSQL 18.6 · 2 ms" when it answers. */
function line(instance: Instance, health: Health | undefined): string {
  const kind = KINDS[instance.plugin] ?? instance.plugin;
  if (!health?.ok) return kind;
  const version = health.version.startsWith(kind) ? health.version : `${kind} ${health.version}`.trim();
  return `${version} · ${duration(health.milliseconds)}`;
}

const KINDS: Record<string, string> = { postgresql: "PostgreSQL", mongodb: "MongoDB" };

function HealthDot({ health }: { health: Health | undefined }) {
  const state = !health ? "unknown" : health.ok ? "up" : "down";
  const word = w(!health ? "instance.asked" : health.ok ? "instance.up" : "instance.down");
  return (
    <span class={`oa-dot oa-dot-${state}`} title={word}>
      <span class="oa-sr">{word}</span>
    </span>
  );
}

function InstanceDetails({ instance, health }: { instance: Instance; health: Health | undefined }) {
  const { plugin, settings } = instance;
  return (
    <div class="oa-instance-body">
      <dl class="oa-facts">
        <Fact name={w("instance.health")}>{health && <Exact text={health.summary} />}</Fact>
        <Fact name={w("instance.warnings")}>
          {health && health.warnings.length > 0 && <Lines lines={health.warnings} />}
        </Fact>
        <Fact name={w("attach.how")}>
          <Pairs values={{ kind: KINDS[plugin] ?? plugin, ...settings }} />
        </Fact>
        <Fact name={w("instance.secret")}>{w("instance.secret.kept")}</Fact>
        <Fact name={w("instance.attached")}>
          <Exact text={w("instance.attached.by", { name: instance.created_by, time: clock(instance.created_at) })} />
        </Fact>
      </dl>
      {health && (
        <p class="oa-muted oa-small">
          {w("instance.checked", { time: clock(health.checked_at), duration: duration(health.milliseconds) })}
        </p>
      )}
      <Actions instance={instance} />
      <Tools instance={instance} />
    </div>
  );
}

function Actions({ instance }: { instance: Instance }) {
  const { api, store } = useDesk();
  const { announce } = useScreen();
  const [, go] = usePlace();
  const [sure, setSure] = useState(false);
  const chat = useDeed();
  const test = useDeed();
  const remove = useDeed();
  const { name } = instance;

  const ask = async () => {
    const health = await api.health(instance);
    store.learn({ type: "plugin:health", seq: 0, health });
    announce(w(health.ok ? "instance.tested.up" : "instance.tested.down", { name, summary: health.summary }));
  };
  const begin = async () => {
    const session = await api.begin(name, "");
    store.learn({ type: "chat:session", seq: 0, session });
    go({ tab: "chats", session: session.id });
  };
  const forget = async () => {
    await api.detach(instance);
    const gone = { server: "", name, status: "detached", instance: null } as const;
    store.learn({ type: "plugin:status", seq: 0, ...gone });
    announce(w("instance.removed", { name }));
  };
  return (
    <>
      <div class="oa-row">
        <button
          type="button"
          class="oa-small-button oa-primary"
          aria-busy={chat.running}
          onClick={() => chat.start(begin)}
        >
          {w("instance.chat")}
        </button>
        <button type="button" class="oa-small-button" aria-busy={test.running} onClick={() => test.start(ask)}>
          {w(test.running ? "instance.testing" : "instance.test")}
        </button>
        <span class="oa-grow" />
        <button type="button" class="oa-quiet" aria-expanded={sure} onClick={() => setSure(!sure)}>
          {w("instance.remove")}
        </button>
      </div>
      {sure && (
        <Sure name={name} running={remove.running} onYes={() => remove.start(forget)} onNo={() => setSure(false)} />
      )}
      <Refused refusal={chat.refusal ?? test.refusal ?? remove.refusal} />
    </>
  );
}

function Sure(props: { name: string; running: boolean; onYes(): void; onNo(): void }) {
  const { name, running } = props;
  const no = useRef<HTMLButtonElement>(null);
  // the harmless button has the focus
  useEffect(() => no.current?.focus(), []);
  return (
    <fieldset class="oa-decide oa-sure" onKeyDown={(event) => event.key === "Escape" && props.onNo()}>
      <legend class="oa-sr">{w("instance.remove")}</legend>
      <p>
        <Exact text={w("instance.remove.sure", { name })} />
      </p>
      <div class="oa-row">
        <button type="button" ref={no} class="oa-small-button" onClick={props.onNo}>
          {w("cancel")}
        </button>
        <button type="button" class="oa-small-button" aria-busy={running} onClick={props.onYes}>
          <Exact text={w("instance.remove.yes", { name })} />
        </button>
      </div>
    </fieldset>
  );
}

function Tools({ instance }: { instance: Instance }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="oa-folded oa-tools" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{w("instance.tools")}</summary>
      {open && <ToolList instance={instance} />}
    </details>
  );
}

function ToolList({ instance }: { instance: Instance }) {
  const { api } = useDesk();
  const { value, refusal, reading } = useAsked(() => api.tools(instance), [instance.id]);
  if (reading) return <p class="oa-muted">{w("loading")}</p>;
  return (
    <>
      <Refused refusal={refusal} />
      <ul>
        {value?.map((tool) => (
          <li key={tool.name} class="oa-row oa-tool">
            <code>
              <Exact text={tool.name} />
            </code>
            <span class="oa-grow oa-muted oa-small">
              <Exact text={tool.summary} />
            </span>
            <RiskBadge risk={tool.risk} />
          </li>
        ))}
      </ul>
    </>
  );
}
