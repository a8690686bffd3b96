"""What a person may do on a Jupyter server: three rights, each a resource that an authorizer is asked about."""

from __future__ import annotations

from enum import Enum

from opsagent_jupyter import protocol


class Right(Enum):
    """A right as Jupyter's authorizer knows it: (action, resource)."""

    READ = ("read", "opsagent:read")
    OPERATE = ("write", "opsagent:operate")
    APPROVE = ("write", "opsagent:approve")

    @property
    def action(self) -> str:
        """``read`` or ``write``."""
        return self.value[0]

    @property
    def resource(self) -> str:
        """The authorizer's resource."""
        return self.value[1]


LOOKING = (
    protocol.Hello,
    protocol.Leave,
    protocol.History,
    protocol.Subscribe,
    protocol.Unsubscribe,
    protocol.GetApproval,
    protocol.SubscribePlugins,
    protocol.UnsubscribePlugins,
    protocol.GetResult,
)


def right_of(command: protocol.Command) -> Right:
    """The right that a command needs; a command that this table does not know needs the highest."""
    match command:
        case protocol.Respond(decision="withdraw"):
            return Right.OPERATE  # only whoever asked can do it, and it makes nothing run
        case protocol.Join(session=session):
            return Right.READ if session else Right.OPERATE
        case protocol.Say() | protocol.Cancel():
            return Right.OPERATE
        case _:
            return Right.READ if isinstance(command, LOOKING) else Right.APPROVE
