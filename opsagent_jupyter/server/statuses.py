"""The one table from an error's class to the status of an HTTP answer; a class without a row has its parent's."""

from __future__ import annotations

from http import HTTPStatus

from opsagent_jupyter import errors

STATUSES: dict[type[errors.OpsAgentError], HTTPStatus] = {
    errors.OpsAgentError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ConfigError: HTTPStatus.BAD_REQUEST,
    errors.MissingExtra: HTTPStatus.NOT_IMPLEMENTED,
    errors.CredentialError: HTTPStatus.BAD_REQUEST,
    errors.PluginError: HTTPStatus.BAD_REQUEST,
    errors.UnknownPlugin: HTTPStatus.NOT_FOUND,
    errors.UnknownServer: HTTPStatus.NOT_FOUND,
    errors.UnknownInstance: HTTPStatus.NOT_FOUND,
    errors.UnknownTool: HTTPStatus.NOT_FOUND,
    errors.InstanceExists: HTTPStatus.CONFLICT,
    errors.CallRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PolicyDenied: HTTPStatus.FORBIDDEN,
    errors.PreconditionFailed: HTTPStatus.CONFLICT,
    errors.PreconditionChanged: HTTPStatus.CONFLICT,
    errors.DigestMismatch: HTTPStatus.CONFLICT,
    errors.ApprovalError: HTTPStatus.BAD_REQUEST,
    errors.UnknownApproval: HTTPStatus.NOT_FOUND,
    errors.AlreadyDecided: HTTPStatus.CONFLICT,
    errors.IllegalTransition: HTTPStatus.CONFLICT,
    errors.NotAsShown: HTTPStatus.CONFLICT,
    errors.NotAllowedToDecide: HTTPStatus.FORBIDDEN,
    errors.ReasonRequired: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SessionError: HTTPStatus.BAD_REQUEST,
    errors.UnknownSession: HTTPStatus.NOT_FOUND,
    errors.SessionBusy: HTTPStatus.CONFLICT,
    errors.SessionClosed: HTTPStatus.CONFLICT,
    # The database's trouble is not the server's: a proxy must not take it for a broken Jupyter and try again.
    errors.ExecutionError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Cancelled: HTTPStatus.CONFLICT,
    errors.StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AuditError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AuditQueryError: HTTPStatus.BAD_REQUEST,
    errors.ModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RunbookError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.VettingUnknown: HTTPStatus.NOT_FOUND,
    errors.NotAllowedToSign: HTTPStatus.FORBIDDEN,
    errors.NobodyToSign: HTTPStatus.FORBIDDEN,
    errors.DemoError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ProtocolError: HTTPStatus.BAD_REQUEST,
    errors.RequestError: HTTPStatus.BAD_REQUEST,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotAuthenticated: HTTPStatus.FORBIDDEN,
    errors.NotAuthorized: HTTPStatus.FORBIDDEN,
    errors.CrossSite: HTTPStatus.FORBIDDEN,
    errors.SessionRequired: HTTPStatus.FORBIDDEN,
    errors.UnknownRoute: HTTPStatus.NOT_FOUND,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
}


def status_of(error: type[errors.OpsAgentError]) -> HTTPStatus:
    """The status of an error: its own row, or that of its nearest ancestor."""
    return next(STATUSES[kind] for kind in error.__mro__ if kind in STATUSES)
