"""What the offline model says next: a call, a question, an answer, or that it does not know.

Everything is decided from what people wrote and from what tools answered. What a database said can be repeated, and
offered as a ready call; it never decides that a call is made, and a change is only asked for in a person's own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from opsagent_jupyter.agent.culprits import Culprits
from opsagent_jupyter.agent.exchange import Exchange
from opsagent_jupyter.agent.explanations import Explanations
from opsagent_jupyter.agent.memory import Memory
from opsagent_jupyter.agent.recollection import Recollection
from opsagent_jupyter.agent.references import References
from opsagent_jupyter.agent.requests import AT_ONCE, YES, Requests
from opsagent_jupyter.agent.reversal import Reversal
from opsagent_jupyter.agent.trail import Goal, Trail
from opsagent_jupyter.agent.variations import Variations
from opsagent_jupyter.agent.wording import DOES, Wording, means_verb
from opsagent_jupyter.agent.world import Reply, Wanted, World
from opsagent_jupyter.models import Risk

WHO = re.compile(
    r"\b(?:who|what) are you\b|\bare you (?:an? )?(?:ai|llm|bot|robot|human|real|gpt|model)\b|\bwhat model\b"
)
HELP = re.compile(
    r"^\W*(?:help|\?+)\W*$|\bwhat (?:else )?(?:can|could) (?:you|i) (?:do|ask)\b|\bhow (?:do|can) you help\b"
)
HELLO = re.compile(r"^\W*(?:hi|hello|hey|hallo|moin|good (?:morning|afternoon|evening))(?: there| opsagent)?\W*$")
THANKS = re.compile(r"^\W*(?:(?:ok|okay|great|perfect|nice|cool|thanks|thank you|thx|ty|cheers|a lot|so much)\W*)+$")
NO = re.compile(
    r"^\W*(?:(?:no|nope|nah|never ?mind|forget (?:it|that)|leave (?:it|that)|not now|dont(?: do (?:it|that))?"
    r"|stop|cancel(?: it| that)?|thanks|thank you|please)\W*)+$"
)
PICK = re.compile(
    r"^\W*(?:(?:yes|please|do|take|fix)\W+)*(?:the\s+)?(?:number\s+|nr\.?\s+|#)?"
    r"(\d|first|second|third|both|all)(?:\s+(?:one|of them))?\W*$"
)
DECIDES = re.compile(r"^\W*(?:yes\W+)?(?:i\s+)?(?:approve|approved|reject|rejected|withdraw)\b")
HISTORY = re.compile(
    r"\bwho\b.{0,40}\b(?:dropped|created|killed|deleted|removed|approved|rejected|changed|ran|executed|vacuumed"
    r"|analy[sz]ed|added|did|made|terminated|cancelled)\b|\bdid (?:anyone|anybody|someone|somebody)\b|\baudit\b"
    r"|\bwhat (?:was|has been|did (?:you|we|i)) (?:changed|done|run|do)\b"
)

#: What it is worth, as tests/integration/test_offline_conversations.py measures it; that test holds these words.
ACCURACY = (
    "Measured on real servers: of 150 written requests to both databases, follow-ups included, it gets at least 95 in 100 "
    "right; of 40 written after it was tuned it got 34 on first sight; none led to a change that was not asked for."
)
ABOUT = f"""\
I am OpsAgent's offline model: fixed rules, no language model, no network. I match your words to the tools of the \
attached databases and the names in them, and tell you in plain words what the tools found. I can follow a short trail \
(slow query, its plan, the missing index) but I do not reason beyond that, and I ask when something is missing. \
Changes wait for a person's approval. \
{ACCURACY} For free conversation choose another model: --model provider:name."""


@dataclass(frozen=True)
class Dialogue:
    """One conversation with the databases it can reach."""

    world: World

    @cached_property
    def requests(self) -> Requests:
        """How requests are read."""
        return Requests(self.world)

    @cached_property
    def trail(self) -> Trail:
        """How answers are gone on from."""
        return Trail(self.world, self.requests)

    def reply(self, exchanges: Sequence[Exchange]) -> Reply:
        """What to say or to call now."""
        if not exchanges:
            return Reply(ABOUT)
        *earlier, current = exchanges
        if current.is_open:
            return Culprits(Memory(self.world, earlier), self.requests).after(current) or self.trail.report(
                current, earlier
            )
        wording = Wording(current.asked)
        plain = wording.rest.strip()
        return (
            (None if wording.sql else self._social(plain, earlier) or self._follow(plain, earlier))
            or Variations(Memory(self.world, earlier), self.requests).reply(
                current.asked, plain, answers=bool(_open_questions(earlier))
            )
            or References(Memory(self.world, earlier), self.requests).reply(current.asked, plain)
            or self.requests.read([*_open_questions(earlier), current.asked])
        )

    def _social(self, plain: str, earlier: Sequence[Exchange]) -> Reply | None:
        if WHO.search(plain) or HELP.search(plain):
            return Reply(f"{ABOUT}\n\n{self.requests.abilities()}")
        if HELLO.match(plain):
            places = ", ".join(instance.name for instance in self.world.instances) or "a database once one is attached"
            return Reply(f"Hello. Ask about {places}; “help” says what I can do.")
        if THANKS.match(plain) and not YES.match(plain):
            return Reply("You are welcome.")
        if NO.match(plain):
            return Reply("All right. Nothing was run.")
        if DECIDES.match(plain):
            return Reply("Nobody can decide that through me: use the card, or %opsagent approve ID and reject ID.")
        if recalled := Recollection(Memory(self.world, earlier)).reply(plain):
            return recalled
        if HISTORY.search(plain):
            return Reply("Who did what, when, and who approved it stands in the audit: %opsagent audit.")
        return None

    # -- about what was offered, found or done before

    def _follow(self, plain: str, earlier: Sequence[Exchange]) -> Reply | None:
        """What needs the conversation to be understood: “undo that”, “explain the second”, “kill it”, “yes”."""
        memory = Memory(self.world, earlier)
        explanations, reversal = Explanations(memory, self.trail.said), Reversal(memory, self.trail.said)
        return (
            reversal.reply(plain)
            or self._explained_fix(plain, explanations)
            or explanations.reply(plain)
            or reversal.how(plain)
            or Culprits(memory, self.requests).reply(plain)
            or self._offered(plain, earlier)
        )

    def _explained_fix(self, plain: str, explanations: Explanations) -> Reply | None:
        """“Do it” after a finding was explained: its fix and no other."""
        if found := explanations.fixing(plain):
            return self.trail.asking([found]) if isinstance(found, Wanted) else found
        verb, agrees, fix = DOES.match(plain), YES.match(plain), explanations.fix()
        if agrees and explanations.focus():
            return self.trail.asking([fix]) if fix else explanations.reply("how do i fix that")
        if fix and verb and means_verb(verb[1], fix.tool.name.split("_")[0]):
            return self.trail.asking([fix])
        return None

    def _offered(self, plain: str, earlier: Sequence[Exchange]) -> Reply | None:
        """“Yes”, “fix it”, “the second one”: about what was offered last."""
        last = next((exchange for exchange in reversed(earlier) if exchange.calls), None)
        offers = self.trail.suggested(last) if last else []
        if (picked := PICK.match(plain)) and offers:
            return self._picked(picked[1], offers)
        if not YES.match(plain) or self._pending(earlier):
            return None
        if not offers:
            return Reply(
                "There is nothing on offer right now. Tell me what to look at, for example “show slow queries”."
            )
        return self._taken(offers, fix=Goal.of(plain).fix)

    def _taken(self, offers: Sequence[Wanted], *, fix: bool) -> Reply:
        gentle = [offer for offer in offers if offer.tool.changes and offer.tool.risk.rank <= Risk.MEDIUM.rank]
        looks = [offer for offer in offers if not offer.tool.changes]
        if len(offers) == 1:
            return self.trail.asking(offers)
        if fix and len(gentle) == 1:
            return self.trail.asking(gentle)
        if fix and not gentle and looks:
            return self.trail.asking(looks[:1])
        return Reply(f"Which one?\n{self.trail.listed(offers)}", asks=True)

    def _pending(self, earlier: Sequence[Exchange]) -> bool:
        """Whether the last thing said was a question about a request, which a yes may answer."""
        questions = _open_questions(earlier)
        return bool(questions) and self.requests.read(questions).meant != ("", "")

    def _picked(self, which: str, offers: Sequence[Wanted]) -> Reply:
        if which in {"both", "all"}:
            return self.trail.asking(offers[:AT_ONCE])
        number = {"first": 1, "second": 2, "third": 3}.get(which) or int(which)
        if not 1 <= number <= len(offers):
            return Reply(f"There is no number {number}.\n{self.trail.listed(offers)}", asks=True)
        return self.trail.asking(offers[number - 1 : number])


def _open_questions(earlier: Sequence[Exchange]) -> list[str]:
    """What was asked since the last call, as far as each message was answered by a question."""
    texts: list[str] = []
    for exchange in reversed(earlier[-3:]):
        said = exchange.steps[-1].said if exchange.steps else ""
        if exchange.calls or "?" not in said:
            break
        texts.insert(0, exchange.asked)
    return texts
