"""The policy only tightens, and who may decide is one check."""

from __future__ import annotations

import pytest

from opsagent_jupyter.errors import NotAllowedToDecide, ReasonRequired
from opsagent_jupyter.models import Actor, Approval, Assessment, Plan, Risk, Target, now
from opsagent_jupyter.policy import Policy, good_reason

ALICE = Actor(id="hub:alice", name="Alice", via="server", stable=True)
BOB = Actor(id="hub:bob", name="Bob", via="server", stable=True)
TARGET = Target(server="s", instance="shop", instance_id="1", plugin="postgresql", environment="production")


def request(risk: Risk, requester: Actor = ALICE) -> Approval:
    plan = Plan(title="t", statements=("x",), risk=risk, reasons=(), lock="none")
    return Approval(
        id="a" * 32, digest="d", tool="p.t", tool_version="1", arguments={}, target=TARGET, plan=plan, risk=risk, reasons=(),
        requester=requester, policy="p", setup="team", created_at=now(), expires_at=now(), nonce="n",
    )  # fmt: skip


@pytest.mark.parametrize("risk", list(Risk))
@pytest.mark.parametrize("raised", list(Risk))
def test_a_policy_never_lowers_a_level(risk: Risk, raised: Risk) -> None:
    """Whatever the rule says, the verdict is at least the assessed level."""
    policy = Policy(raise_to={"*": raised})
    verdict = policy.verdict("p.t", Assessment(risk=risk), TARGET, changes=False, read_only=False)
    assert verdict.risk.rank == max(risk.rank, raised.rank)
    assert verdict.decision == ("allow" if verdict.risk is Risk.LOW else "ask")


def test_a_changing_call_is_never_allowed_without_a_person() -> None:
    """Even a call that says it is low is asked about when it changes something."""
    verdict = Policy().verdict("p.t", Assessment(risk=Risk.LOW), TARGET, changes=True, read_only=False)
    assert (verdict.decision, verdict.risk) == ("ask", Risk.MEDIUM)


def test_a_read_only_instance_refuses_every_change() -> None:
    """The refusal names the rule."""
    verdict = Policy().verdict("p.t", Assessment(risk=Risk.HIGH), TARGET, changes=True, read_only=True)
    assert verdict.decision == "deny"
    assert "read-only" in str(Policy().refuse(verdict, "p.t"))


def test_a_rule_can_deny_by_environment() -> None:
    """A pattern with an environment binds only there."""
    policy = Policy(deny=("production/p.*",))
    staging = TARGET.model_copy(update={"environment": "staging"})
    decisions = [
        policy.verdict("p.t", Assessment(risk=Risk.LOW), target, changes=False, read_only=False).decision
        for target in (TARGET, staging)
    ]
    assert decisions == ["deny", "allow"]


def test_the_requester_cannot_approve_a_critical_call_where_four_eyes_hold() -> None:
    """Self-approval is refused; a colleague may."""
    policy = Policy()
    with pytest.raises(NotAllowedToDecide):
        policy.check_decision(request(Risk.CRITICAL), ALICE, "approve", "a really good reason", setup="team")
    policy.check_decision(request(Risk.CRITICAL), BOB, "approve", "a really good reason", setup="team")
    policy.check_decision(request(Risk.CRITICAL), ALICE, "approve", "a really good reason", setup="personal")


def test_unstable_identities_are_no_second_pair_of_eyes() -> None:
    """Two browsers may be one person, so four eyes refuse them."""
    guest = Actor(id="anonymous:2", name="Anonymous Io", via="server", stable=False)
    with pytest.raises(NotAllowedToDecide):
        Policy().check_decision(request(Risk.CRITICAL), guest, "approve", "a really good reason", setup="team")


@pytest.mark.parametrize("decision", ["approve", "reject", "withdraw", "revoke"])
def test_a_model_decides_nothing(decision: str) -> None:
    """An actor that is an agent is refused on every decision."""
    agent = ALICE.model_copy(update={"agent": True})
    with pytest.raises(NotAllowedToDecide):
        Policy(four_eyes="off").check_decision(
            request(Risk.MEDIUM), agent, decision, "some good reason", setup="personal"
        )


def test_only_the_requester_withdraws() -> None:
    """Others reject."""
    with pytest.raises(NotAllowedToDecide):
        Policy().check_decision(request(Risk.LOW), BOB, "withdraw", "", setup="personal")


@pytest.mark.parametrize("reason", ["", ".", "..........", "aaaaaaaaaaaa", "ok ok ok ok", "approved", "          x"])
def test_a_reason_has_to_say_something(reason: str) -> None:
    """Dots, repeats and single words are refused for critical calls."""
    assert not good_reason(reason)
    with pytest.raises(ReasonRequired):
        Policy().check_decision(request(Risk.CRITICAL), BOB, "approve", reason, setup="team")


def test_a_good_reason_is_taken() -> None:
    """A sentence is enough."""
    assert good_reason("blocks checkout since 14:02")
