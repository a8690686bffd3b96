/* Written by protocol.mjs from schema.json, which is written from protocol.py: do not edit. */

export type Command =
  | Hello
  | Join
  | Leave
  | Say
  | Cancel
  | History
  | Subscribe
  | Unsubscribe
  | Respond
  | GetApproval
  | Resolve
  | SubscribePlugins
  | UnsubscribePlugins
  | GetResult
  | Reveal;
export type Event =
  | Welcome
  | Joined
  | Appended
  | TurnEvent
  | Typing
  | ToolExecution
  | ApprovalRequested
  | ApprovalChanged
  | ApprovalsListed
  | ResultRead
  | SecretShown
  | HealthChanged
  | PluginStatus
  | ToolExecuted
  | SessionChanged
  | Failure;
export type JsonValue = unknown;
/**
 * How much a call can hurt. Only ``low`` runs without a person.
 */
export type Risk = "low" | "medium" | "high" | "critical";
/**
 * Where an approval request stands.
 */
export type ApprovalState =
  | "pending"
  | "approved"
  | "rejected"
  | "expired"
  | "withdrawn"
  | "superseded"
  | "revoked"
  | "stale"
  | "executing"
  | "succeeded"
  | "failed"
  | "unknown";

/**
 * Everything that is said; it exists only to be exported as one JSON Schema.
 */
export interface Protocol {
  asked: Asked;
  told: Told;
}
/**
 * A command in its envelope.
 */
export interface Asked {
  command: Command;
  v: 1;
}
/**
 * A screen introduces itself with the release it belongs to and the last feed seq it saw, 0 when it is new.
 */
export interface Hello {
  since: number;
  type: "hello";
  version: string;
}
/**
 * Watch a session; an empty id starts a new one. ``since`` is the seq of the last message that the screen holds.
 */
export interface Join {
  session: string;
  since: number;
  type: "chat:join";
}
/**
 * Stop watching a session.
 */
export interface Leave {
  session: string;
  type: "chat:leave";
}
/**
 * Start a turn with a person's words.
 */
export interface Say {
  session: string;
  text: string;
  type: "chat:message";
}
/**
 * Stop the running turn, in the database too.
 */
export interface Cancel {
  session: string;
  type: "chat:cancel";
}
/**
 * Ask for the messages before ``before`` (a seq).
 */
export interface History {
  before: number;
  session: string;
  type: "chat:history";
}
/**
 * Watch the approval requests.
 */
export interface Subscribe {
  type: "approval:subscribe";
}
/**
 * Stop watching the approval requests.
 */
export interface Unsubscribe {
  type: "approval:unsubscribe";
}
/**
 * Decide a request as it was seen: ``version`` and ``digest`` are those that were on the screen.
 */
export interface Respond {
  decision: "approve" | "reject" | "withdraw" | "revoke";
  digest: string;
  id: string;
  reason: string;
  type: "approval:respond";
  version: number;
}
/**
 * Ask how a request stands.
 */
export interface GetApproval {
  id: string;
  type: "approval:get";
}
/**
 * Record what became of a call whose outcome nobody saw.
 */
export interface Resolve {
  id: string;
  reason: string;
  state: "succeeded" | "failed";
  type: "approval:resolve";
}
/**
 * Watch what is attached, how it is, and what runs on it.
 */
export interface SubscribePlugins {
  type: "plugin:subscribe";
}
/**
 * Stop watching what is attached.
 */
export interface UnsubscribePlugins {
  type: "plugin:unsubscribe";
}
/**
 * Ask for the rows of a call; they are in no saved notebook, so they are fetched when somebody looks.
 */
export interface GetResult {
  call: string;
  type: "result:get";
}
/**
 * Take the secret that a call has made, such as a new role's password: it is shown once, to this screen.
 */
export interface Reveal {
  id: string;
  type: "secret:reveal";
}
/**
 * An event in its envelope.
 */
export interface Told {
  event: Event;
  v: 1;
}
/**
 * Python introduces itself: its release, what its approvals are worth, and as whom it takes this screen.
 */
export interface Welcome {
  actor: Actor;
  claim: string;
  model: string;
  resumed: boolean;
  seq: number;
  setup: string;
  store: string;
  type: "hello";
  version: string;
}
/**
 * Who did something: a person as the door they came through names them.
 */
export interface Actor {
  agent: boolean;
  id: string;
  name: string;
  stable: boolean;
  via: "kernel" | "cli" | "server" | "worker" | "api";
}
/**
 * A session with a page of its transcript; ``messages`` may overlap what the screen holds.
 */
export interface Joined {
  busy: boolean;
  messages: Message[];
  seq: number;
  session: Session;
  type: "chat:joined";
}
/**
 * One entry of a transcript. ``seq`` is gapless within the session, from 1.
 */
export interface Message {
  author: string;
  call: string;
  calls: CallRecord[];
  created_at: string;
  model: string;
  partial: boolean;
  role: "user" | "assistant" | "tool";
  seq: number;
  session: string;
  text: string;
  turn: string;
}
/**
 * One tool call as its caller sees it, whatever door it came through.
 */
export interface CallRecord {
  approval: string;
  arguments: {
    [k: string]: JsonValue;
  };
  effect: Effect | null;
  error_code: string;
  id: string;
  instance: string;
  milliseconds: number;
  reasons: string[];
  requested: string;
  result: Result | null;
  risk: Risk;
  status: "running" | "succeeded" | "failed" | "refused" | "waiting" | "unknown" | "cancelled";
  summary: string;
  tool: string;
}
/**
 * How a changing call ended, as read back from the database, not as the driver reported it.
 */
export interface Effect {
  error_code: string;
  figures: {
    [k: string]: JsonValue;
  };
  residue: string[];
  result: Result | null;
  state: "succeeded" | "failed" | "unknown";
  suggestions: Suggestion[];
  summary: string;
}
/**
 * What a read tool found. ``summary`` is plain text that reads well alone; ``highlights`` are its points.
 */
export interface Result {
  figures: {
    [k: string]: JsonValue;
  };
  highlights: string[];
  notes: string[];
  suggestions: Suggestion[];
  summary: string;
  tables: Table[];
  tree: string;
}
/**
 * A ready call that would follow from a result. It is offered, never run by itself.
 */
export interface Suggestion {
  arguments: {
    [k: string]: JsonValue;
  };
  tool: string;
  why: string;
}
/**
 * Rows of a result. ``rows`` holds JSON values only, capped; ``total`` counts what there was.
 */
export interface Table {
  columns: string[];
  name: string;
  rows: JsonValue[][];
  total: number;
  units: {
    [k: string]: string;
  };
}
/**
 * One conversation.
 */
export interface Session {
  closed: boolean;
  created_at: string;
  created_by: string;
  id: string;
  instance: string;
  model: string;
  server: string;
  title: string;
  updated_at: string;
}
/**
 * A new entry of a transcript.
 */
export interface Appended {
  message: Message;
  seq: number;
  type: "chat:message";
}
/**
 * How a turn goes. ``text`` is what ``delta`` adds, why it ``failed``, else the whole answer so far.
 *
 * A parked turn goes on, after the decision, under another id.
 */
export interface TurnEvent {
  code: string;
  hint: string;
  kind: "started" | "delta" | "finished" | "failed" | "cancelled" | "parked";
  seq: number;
  session: string;
  text: string;
  turn: string;
  type: "chat:event";
}
/**
 * The model is thinking, or has stopped.
 */
export interface Typing {
  on: boolean;
  seq: number;
  session: string;
  type: "chat:typing";
}
/**
 * A tool call of a turn, as it stands now. Rows may be left out; ``result:get`` has them.
 */
export interface ToolExecution {
  call: CallRecord;
  seq: number;
  session: string;
  turn: string;
  type: "chat:tool_execution";
}
/**
 * A new approval request.
 */
export interface ApprovalRequested {
  approval: Approval;
  seq: number;
  type: "approval:request";
}
/**
 * The durable question about one call, and everything that became of it.
 */
export interface Approval {
  arguments: {
    [k: string]: JsonValue;
  };
  call: string;
  claimed_at: string | null;
  created_at: string;
  decided_at: string | null;
  decided_by: Actor | null;
  digest: string;
  effect: Effect | null;
  ended_at: string | null;
  evidence: {
    [k: string]: JsonValue;
  };
  expires_at: string;
  host: string;
  id: string;
  nonce: string;
  origins: Origin[];
  plan: Plan;
  policy: string;
  reason: string;
  reasons: string[];
  requester: Actor;
  risk: Risk;
  session: string;
  setup: string;
  state: ApprovalState;
  supersedes: string;
  target: Target;
  tool: string;
  tool_version: string;
  use_by: string | null;
  version: number;
}
/**
 * Where something in a language model's call comes from that no person wrote; found in the transcript by code.
 */
export interface Origin {
  argument: string;
  at: string | null;
  call: string;
  instance: string;
  kind: "database" | "model";
  server: string;
  text: string;
  tool: string;
}
/**
 * What a changing call would do: shown on the card, bound by the digest, executed to the letter.
 */
export interface Plan {
  before: {
    [k: string]: JsonValue;
  };
  cautions: string[];
  comparison: Comparison | null;
  duration: string;
  execution: "probeable" | "once";
  lock: string;
  preconditions: {
    [k: string]: JsonValue;
  };
  reasons: string[];
  risk: Risk;
  size: string;
  statements: string[];
  title: string;
  undo: string;
  undo_note: string;
  waits: string[];
}
/**
 * The planner's cost of a statement before and after a hypothetical change (unit: planner cost).
 */
export interface Comparison {
  after: number;
  before: number;
  note: string;
}
/**
 * What a call is aimed at, as it was when the call was planned.
 */
export interface Target {
  environment: "production" | "staging" | "development";
  identity: {
    [k: string]: JsonValue;
  };
  instance: string;
  instance_id: string;
  plugin: string;
  server: string;
}
/**
 * An approval request as it stands now.
 */
export interface ApprovalChanged {
  approval: Approval;
  seq: number;
  type: "approval:response";
}
/**
 * The approval requests that are open, oldest first.
 */
export interface ApprovalsListed {
  approvals: Approval[];
  seq: number;
  type: "approval:list";
}
/**
 * The rows of a call.
 */
export interface ResultRead {
  call: string;
  result: Result;
  seq: number;
  type: "result";
}
/**
 * The secret of a request, for the one screen that asked for it. Nothing keeps it: no state, no trait, no log.
 */
export interface SecretShown {
  id: string;
  seq: number;
  text: string;
  type: "secret:shown";
}
/**
 * How an instance answered when it was last asked.
 */
export interface HealthChanged {
  health: Health;
  seq: number;
  type: "plugin:health";
}
/**
 * How an instance answered when it was last asked.
 */
export interface Health {
  checked_at: string;
  error_code: string;
  instance: string;
  milliseconds: number;
  ok: boolean;
  summary: string;
  version: string;
  warnings: string[];
}
/**
 * A server or a database that is attached to it, as it stands now; ``detached`` when it was taken away.
 */
export interface PluginStatus {
  instance: Instance | null;
  name: string;
  seq: number;
  server: string;
  status: "attached" | "detached" | "changed";
  type: "plugin:status";
}
/**
 * One database attached under a name. Its credentials are not in here.
 */
export interface Instance {
  created_at: string;
  created_by: string;
  environment: "production" | "staging" | "development";
  id: string;
  name: string;
  plugin: string;
  read_only: boolean;
  server: string;
  settings: {
    [k: string]: JsonValue;
  };
}
/**
 * A tool call that ended, whatever door it came through.
 */
export interface ToolExecuted {
  actor: string;
  approval: string;
  call: string;
  instance: string;
  milliseconds: number | null;
  risk: string;
  seq: number;
  server: string;
  session: string;
  status: string;
  summary: string;
  tool: string;
  type: "plugin:tool_executed";
}
/**
 * A session was opened, renamed or closed, or said something new.
 */
export interface SessionChanged {
  seq: number;
  session: Session;
  type: "chat:session";
}
/**
 * A command that could not be done. ``code`` is stable; ``about`` is the id that the command named.
 */
export interface Failure {
  about: string;
  code: string;
  command: string;
  hint: string;
  message: string;
  seq: number;
  type: "error";
}
