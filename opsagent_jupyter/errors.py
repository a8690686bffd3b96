"""Every error the product raises, one tree, each with a stable code.

::

    OpsAgentError                 code, hint (what to do), retryable
    ├── ConfigError               ── MissingExtra
    ├── CredentialError           ── KeyMalformed, KeyMissing, KeyUnknown, DecryptionFailed, SecretInClear
    ├── PluginError               ── UnknownPlugin, UnknownServer, UnknownInstance, InstanceExists, UnknownTool, InvalidToolSpec
    ├── CallRefused               a normal answer, readable by model and person, never retried by itself
    │   └── InvalidArguments, PolicyDenied, StatementRefused, PreconditionFailed, MissingRight,
    │       PreconditionChanged, DigestMismatch, TurnLimit
    ├── ApprovalError             ── UnknownApproval, AlreadyDecided, IllegalTransition, NotAllowedToDecide, ReasonRequired,
    │                                NotAsShown, SecretMissing, SecretRevealed, SecretExpired, NotAllowedToReveal
    ├── SessionError              ── UnknownSession, SessionBusy, SessionClosed
    ├── ExecutionError            ── MalformedDsn, TargetUnreachable, AuthenticationFailed, TlsRefused, DatabaseError,
    │                                DeadlineExceeded, Cancelled, EffectMissing, OutcomeUnknown
    ├── StoreError                ── StoreUnavailable, StoreLocked, StoreCorrupt, StoreReadOnly, StoreFull,
    │                                SchemaOutdated, SchemaTooNew
    ├── AuditError                ── AuditUnavailable, AuditTampered, AuditQueryError
    ├── ModelError                ── UnknownModel, ModelUnavailable, ModelRefused, ModelNonsense, AnswerCutOff
    ├── RunbookError              ── RunbookMalformed, StepWaiting, StepRefused, StepFailed, StepUnknown, EvidenceTampered,
    │                                VettingUnknown, VettingVoid, NotAllowedToSign, NobodyToSign
    ├── DemoError
    ├── ProtocolError             ── UnknownMessage, VersionMismatch
    └── RequestError              ── InvalidRequest, InvalidCursor, RequestTooLarge, TooManyRequests, NotAuthenticated,
                                     NotAuthorized, CrossSite, SessionRequired, UnknownRoute, MethodNotAllowed

The class docstring is the default message; facts are attributes; ``hint`` says what to do next. A message never holds
a secret: an error is printed, stored and shown to the model. Nothing in the product branches on message text.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar


class OpsAgentError(Exception):
    """Something went wrong in OpsAgent."""

    code: ClassVar[str] = "opsagent"
    hint: str = ""
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, hint: str | None = None, **facts: Any) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or self.code)
        if hint is not None:
            self.hint = hint
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of frames, whose variables may hold secrets and tell a DBA nothing."""
        return [f"✗ {self.message}", *([f"  → {self.hint}"] if self.hint else []), f"  ({self.code})"]


class ConfigError(OpsAgentError):
    """A setting has a value that OpsAgent cannot use."""

    code = "config"


class MissingExtra(ConfigError):
    """A client library that this plugin needs is not installed."""

    code = "config.missing_extra"
    extra: str


class CredentialError(OpsAgentError):
    """Credentials could not be stored or read."""

    code = "credential"


class KeyMalformed(CredentialError):
    """The encryption key is not 64 hexadecimal characters."""

    code = "credential.key_malformed"
    hint = "Make one with `opsagent key new` and set PLUGIN_ENCRYPTION_KEY to it (`new,old` while rotating)."


class KeyMissing(CredentialError):
    """No encryption key is set, and this store is shared, so none may be invented here."""

    code = "credential.key_missing"
    hint = "Set PLUGIN_ENCRYPTION_KEY to the key that the other hosts of this store use."


class KeyUnknown(CredentialError):
    """A credential was encrypted with a key that this process does not have."""

    code = "credential.key_unknown"
    hint = (
        "Set PLUGIN_ENCRYPTION_KEY to `current,old` with the key of that id among them, or attach the instance again."
    )
    key_id: str


class DecryptionFailed(CredentialError):
    """A stored credential does not decrypt: it was altered, or moved to another instance or field."""

    code = "credential.decryption_failed"
    hint = "Detach the instance and attach it again; look in the audit for who changed the store."


class SecretInClear(CredentialError):
    """A password was typed where it would be saved: in a cell, a history file or a process list."""

    code = "credential.secret_in_clear"
    hint = "Use --dsn-env VARIABLE, --service NAME or --prompt, and change that password if the notebook was saved."


class PluginError(OpsAgentError):
    """A plugin, an instance or a tool is not as it should be."""

    code = "plugin"


class UnknownPlugin(PluginError):
    """There is no plugin of that name."""

    code = "plugin.unknown"


class UnknownServer(PluginError):
    """There is no server of that name."""

    code = "plugin.unknown_server"


class UnknownInstance(PluginError):
    """No database of that name is attached."""

    code = "plugin.unknown_instance"


class InstanceExists(PluginError):
    """A database of that name is attached already."""

    code = "plugin.instance_exists"
    hint = "Choose another name, or detach the old one first."


class UnknownTool(PluginError):
    """There is no tool of that name."""

    code = "plugin.unknown_tool"


class InvalidToolSpec(PluginError):
    """A plugin declares a tool that does not meet the contract, so the plugin was not loaded."""

    code = "plugin.invalid_tool_spec"


class CallRefused(OpsAgentError):
    """The call was refused; nothing was sent to the database."""

    code = "call.refused"


class InvalidArguments(CallRefused):
    """An argument is missing, unknown or of the wrong type."""

    code = "call.invalid_arguments"


class PolicyDenied(CallRefused):
    """The policy of this installation does not allow this call."""

    code = "call.policy_denied"


class StatementRefused(CallRefused):
    """The statement could change something, so it is not explained or run."""

    code = "call.statement_refused"
    reason: str


class PreconditionFailed(CallRefused):
    """The object is not in a state in which this can be done."""

    code = "call.precondition_failed"


class MissingRight(CallRefused):
    """The database role lacks a right that this tool needs."""

    code = "call.missing_right"
    right: str


class PreconditionChanged(CallRefused):
    """The database changed after the approval, so the approved call was not run."""

    code = "call.precondition_changed"
    hint = "Ask again: the new request shows the state as it is now."


class DigestMismatch(CallRefused):
    """What is stored is not what was approved; nothing was run."""

    code = "call.digest_mismatch"
    hint = "Somebody edited the store. Run `opsagent audit verify`, then ask again."


class TurnLimit(CallRefused):
    """The turn reached its limit of tool calls or time."""

    code = "call.turn_limit"


class ApprovalError(OpsAgentError):
    """An approval request cannot be decided like this."""

    code = "approval"


class UnknownApproval(ApprovalError):
    """There is no approval request with that id."""

    code = "approval.unknown"
    hint = "List them with `%opsagent approvals` or `opsagent approvals`."


class AlreadyDecided(ApprovalError):
    """Somebody decided this request already, or its time ran out."""

    code = "approval.already_decided"


class IllegalTransition(ApprovalError):
    """An approval request cannot go from its state to that one."""

    code = "approval.illegal_transition"


class NotAllowedToDecide(ApprovalError):
    """This person may not decide this request."""

    code = "approval.not_allowed"


class ReasonRequired(ApprovalError):
    """This decision needs a reason of at least ten characters that says why."""

    code = "approval.reason_required"
    hint = "Give one, for example --reason 'blocks checkout since 14:02, owner informed'."


class NotAsShown(ApprovalError):
    """This request is not what the screen showed, so nothing was decided."""

    code = "approval.not_as_shown"
    hint = "Load the request again, read it, and decide then."


class SecretMissing(ApprovalError):
    """This request keeps no secret that could be shown."""

    code = "approval.secret_missing"


class SecretRevealed(ApprovalError):
    """This secret was shown already, and it is shown only once."""

    code = "approval.secret_revealed"
    hint = "If the right person did not see it, set a new one in the database."
    by: str
    at: str


class SecretExpired(ApprovalError):
    """Nobody asked for this secret in time, so it was deleted."""

    code = "approval.secret_expired"
    hint = "Set a new one in the database."


class NotAllowedToReveal(ApprovalError):
    """This secret is shown only to the person who asked for the call, or who approved it."""

    code = "approval.secret_not_yours"
    hint = "Ask one of them."


class SessionError(OpsAgentError):
    """The conversation cannot be used like this."""

    code = "session"


class UnknownSession(SessionError):
    """There is no session with that id."""

    code = "session.unknown"
    hint = "List them with `%opsagent sessions`."


class SessionBusy(SessionError):
    """Another host is working on this session right now."""

    code = "session.busy"
    hint = "Wait for its turn to end, or cancel it there."
    retryable = True


class SessionClosed(SessionError):
    """This session is closed."""

    code = "session.closed"
    hint = "Start a new one; `%opsagent open ID` shows what was said."


class ExecutionError(OpsAgentError):
    """The database could not do what was asked."""

    code = "execution"


class MalformedDsn(ExecutionError):
    """The connection string cannot be read."""

    code = "execution.malformed_dsn"
    hint = "Write postgresql://user@host:5432/database, or host=... dbname=... user=... pairs."


class TargetUnreachable(ExecutionError):
    """The database server does not answer."""

    code = "execution.unreachable"
    hint = "Check host, port, firewall and that the server runs."
    retryable = True


class AuthenticationFailed(ExecutionError):
    """The database server refused this user or password."""

    code = "execution.authentication_failed"
    hint = "Check user and password (and pg_hba.conf), then attach again."


class TlsRefused(ExecutionError):
    """Client and server do not agree on TLS."""

    code = "execution.tls_refused"
    hint = "Check sslmode, sslrootcert and the server's certificate."


class DatabaseError(ExecutionError):
    """The database reported an error."""

    code = "execution.database"
    native_code: str


class DeadlineExceeded(ExecutionError):
    """The call took longer than its deadline and was cancelled in the database."""

    code = "execution.deadline"
    hint = "Raise the deadline if the work is wanted, or look at what else runs and waits in the database."


class Cancelled(ExecutionError):
    """The call was cancelled, in the database too."""

    code = "execution.cancelled"


class EffectMissing(ExecutionError):
    """The database reported success, but the effect is not there."""

    code = "execution.effect_missing"


class OutcomeUnknown(ExecutionError):
    """The statement was sent and its end was not seen: it may have run. It is not retried."""

    code = "execution.outcome_unknown"
    hint = "Look at the target; the request stays `unknown` until a probe or a person records what happened."


class StoreError(OpsAgentError):
    """The shared store cannot be used."""

    code = "store"


class StoreUnavailable(StoreError):
    """The shared store does not answer."""

    code = "store.unavailable"
    hint = "Check that its server, or its disk, is there, and that OPSAGENT_STORE_URL is right."
    retryable = True


class StoreLocked(StoreError):
    """Another process holds the store locked."""

    code = "store.locked"
    hint = "Try again; if it stays, find the process that holds it (`opsagent doctor` names the file)."
    retryable = True


class StoreCorrupt(StoreError):
    """The store file is damaged or is no OpsAgent store."""

    code = "store.corrupt"
    hint = "Nothing was changed. Restore a backup (`opsagent store backup` makes them), or point OPSAGENT_STORE_URL elsewhere."


class StoreReadOnly(StoreError):
    """The store cannot be written, and without an audit record nothing runs."""

    code = "store.read_only"
    hint = "Make the file and its folder writable for this user, or point OPSAGENT_STORE_URL elsewhere."


class StoreFull(StoreError):
    """The disk of the store is full, and without an audit record nothing runs."""

    code = "store.full"
    hint = "Free space on that disk and try again; nothing was lost."
    retryable = True


class SchemaOutdated(StoreError):
    """The store has an older schema than this release needs."""

    code = "store.schema_outdated"
    hint = "Run `opsagent store upgrade` (it makes a backup first)."


class SchemaTooNew(StoreError):
    """The store was written by a newer release of OpsAgent."""

    code = "store.schema_too_new"
    hint = "Upgrade this installation: pip install -U opsagent_jupyter."


class AuditError(OpsAgentError):
    """The audit cannot be written, read or trusted."""

    code = "audit"


class AuditUnavailable(AuditError):
    """The audit record could not be written, so the operation was not started."""

    code = "audit.unavailable"


class AuditTampered(AuditError):
    """The audit chain is broken."""

    code = "audit.tampered"
    first_bad: int


class AuditQueryError(AuditError):
    """The audit query cannot be run."""

    code = "audit.query"


class ModelError(OpsAgentError):
    """The language model could not answer."""

    code = "model"


class UnknownModel(ModelError):
    """That model name is not known."""

    code = "model.unknown"
    hint = "Write provider:name, for example openai:gpt-5, anthropic:claude-sonnet-4-5, ollama:qwen3, or offline."


class ModelUnavailable(ModelError):
    """The language model does not answer."""

    code = "model.unavailable"
    hint = "Check its key, base URL and network; `--model offline` works without any of them."
    retryable = True


class ModelRefused(ModelError):
    """The language model's provider refused the request."""

    code = "model.refused"


class ModelNonsense(ModelError):
    """The language model's answer could not be used; nothing was run from it."""

    code = "model.nonsense"
    hint = "Ask again, or use --model offline."
    retryable = True


class RunbookError(OpsAgentError):
    """A runbook cannot be made, run or verified."""

    code = "runbook"


class RunbookMalformed(RunbookError):
    """This file is no runbook."""

    code = "runbook.malformed"
    hint = "`opsagent runbook export FILE` writes one from a conversation."


class StepWaiting(RunbookError):
    """A step waits for a person's decision, so the runbook stops here."""

    code = "runbook.step_waiting"


class StepRefused(RunbookError):
    """A step was refused, so the runbook stops here."""

    code = "runbook.step_refused"


class StepFailed(RunbookError):
    """A step failed, so the runbook stops here."""

    code = "runbook.step_failed"


class StepUnknown(RunbookError):
    """Whether a step took effect is not known, so the runbook stops here."""

    code = "runbook.step_unknown"


class EvidenceTampered(RunbookError):
    """The evidence in this notebook is not what was recorded."""

    code = "runbook.tampered"


class VettingUnknown(RunbookError):
    """There is no such signature of a runbook in this store."""

    code = "runbook.vetting_unknown"
    hint = "`opsagent runbook signatures` lists them; a runbook is signed in each store that it runs in."


class VettingVoid(RunbookError):
    """This signature of a runbook lets nothing pass."""

    code = "runbook.vetting_void"


class NotAllowedToSign(RunbookError):
    """Whoever asks may not sign a runbook, or take a signature back."""

    code = "runbook.not_allowed_to_sign"


class NobodyToSign(RunbookError):
    """A runbook is signed by a person who is asked, and here nobody can be."""

    code = "runbook.nobody_to_sign"
    hint = "Sign it in a terminal, or in a notebook that you run yourself."


class AnswerCutOff(ModelError):
    """The answer broke off before its end; what was said is kept."""

    code = "model.cut_off"
    hint = "Say “go on” to hear the rest."
    retryable = True


class DemoError(OpsAgentError):
    """The demo could not start."""

    code = "demo"


class ProtocolError(OpsAgentError):
    """A message between screen and Python could not be read."""

    code = "protocol"


class UnknownMessage(ProtocolError):
    """That kind of message is not known."""

    code = "protocol.unknown_message"


class VersionMismatch(ProtocolError):
    """Screen and Python are of different releases."""

    code = "protocol.version_mismatch"
    hint = "Restart the kernel and reload the page; `opsagent doctor` shows the versions."


class RequestError(OpsAgentError):
    """The Jupyter server could not take this request."""

    code = "request"


class InvalidRequest(RequestError):
    """The request's path, query or body is not what this endpoint takes."""

    code = "request.invalid"
    hint = "The OpenAPI document at opsagent/api/openapi.json says what each endpoint takes."


class InvalidCursor(RequestError):
    """This cursor was not made by this list."""

    code = "request.cursor"
    hint = "Take `next` from the last page as it is, with the same filters; without a cursor the list begins anew."


class RequestTooLarge(RequestError):
    """The request's body is larger than this endpoint takes."""

    code = "request.too_large"
    limit: int


class TooManyRequests(RequestError):
    """Too many requests came from this person in a short time."""

    code = "request.too_many"
    hint = "Wait for as many seconds as Retry-After says."
    retryable = True
    seconds: float


class NotAuthenticated(RequestError):
    """The Jupyter server does not know who asks."""

    code = "request.not_authenticated"
    hint = "Log in to Jupyter in this browser, or send its token."


class NotAuthorized(RequestError):
    """This person has no right to do that on this Jupyter server."""

    code = "request.not_authorized"
    hint = "Whoever runs this Jupyter server can give it: the resources are opsagent:read, opsagent:operate, opsagent:approve."


class CrossSite(RequestError):
    """The request comes from another page, or lacks the token that shows it does not."""

    code = "request.cross_site"
    hint = "Send the value of the cookie _xsrf as the header X-XSRFToken, from a page of this Jupyter server."


class SessionRequired(RequestError):
    """A token alone decides nothing: a person decides, logged in to Jupyter in a browser."""

    code = "request.session_required"
    hint = "Decide in JupyterLab, in a notebook, or with `opsagent approve`: programs that hold the token can only ask."


class UnknownRoute(RequestError):
    """There is nothing at this address."""

    code = "request.unknown_route"
    hint = InvalidRequest.hint


class MethodNotAllowed(RequestError):
    """This address does not take this method."""

    code = "request.method"
    hint = InvalidRequest.hint
