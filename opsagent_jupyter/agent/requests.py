"""Reads one request: the call that it asks for, the question that it leaves open, or why nothing can be done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from opsagent_jupyter.agent import answers
from opsagent_jupyter.agent.routing import CLEAR, THRESHOLD, Candidate
from opsagent_jupyter.agent.slots import NAMED, TABLES, Filling, Names
from opsagent_jupyter.agent.wording import ANSWER, CHANGING, Wording, stem, word_set
from opsagent_jupyter.agent.world import WAITS, Reply, Wanted, World
from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.models import Instance
from opsagent_jupyter.plugin import Tool

#: By how much one database's tool must fit better than another's to be the one that is meant.
APART = 0.4
#: Separate calls that one request may ask for by naming several things.
AT_ONCE = 4
#: Verbs that want to see something.
LOOKING = word_set("show list display get give find explain check tell look count describe analyze which")
#: A question about the whole database rather than one thing in it.
CHECKUP = re.compile(
    r"\b(?:health ?check|check ?up|overview|diagnos(?:e|is|tics?)|whats wrong|what is wrong|anything wrong|something wrong"
    r"|everything (?:ok|okay|fine|all right|healthy)|how ?(?:healthy )?(?:is|s) (?:the|my|our|this) (?:db|database|server)"
    r"|is (?:the|my|our|this) (?:db|database|server) (?:ok|okay|fine|healthy|sick|in good shape)"
    r"|why (?:is|s) (?:everything|the whole (?:db|database|server)) slow|what (?:should|do|can) (?:i|we) fix"
    r"|(?:any|all|what|find|show|list) (?:the |your |other |serious )?problems)\b"
)
#: The tool by which a plugin answers such a question, where it has one.
DIAGNOSIS = "diagnose"
#: What people call a kind of database besides its name and the beginnings of it.
IN_PLUGIN = re.compile(
    r"\b(?:in|on|for|of|from|over|at)\s+(?:the\s+|my\s+|our\s+)?(?:postgres(?:ql)?|pg|psql|mongo(?:db)?)\b",
    re.IGNORECASE,
)
SHORT = {"pg": "postgresql", "psql": "postgresql", "pgsql": "postgresql", "mdb": "mongodb"}
YES = re.compile(
    r"^\W*(?:(?:yes|yeah|yep|sure|ok|okay|please|pls|and|then|now)\W+)*(?:yes|yeah|yep|sure|go ahead|go on"
    r"|do (?:it|that|this|so)|fix (?:it|that|this)|run it|please do|proceed|make it so|sounds good|apply (?:it|that)"
    r"|lets do (?:it|that))(?:\W+(?:please|pls|now|then|thanks|if you can))*\W*$"
)


@dataclass(frozen=True)
class Requests:
    """Reads requests in one world."""

    world: World

    def read(self, texts: Sequence[str]) -> Reply:
        """The last request; where an earlier one was answered by a question, the two are read together."""
        text, *others = texts
        reply = self.decided(text)
        for other in others:
            together = self._completed(text, other, reply) if reply.asks else None
            alone = self.decided(other)
            if together and not (alone.sure and alone.calls and _is_request(other)):
                text, reply = together
            else:
                text, reply = other, alone
        return reply

    def _completed(self, text: str, answer: str, question: Reply) -> tuple[str, Reply] | None:
        word, name = question.meant
        said = self.named(Wording(answer)) if question.anywhere else []
        if len(said) == 1 and not self.decided(answer).sure:
            return text, self.decided(text, said[0])
        if word and YES.match(Wording(answer).rest.strip()):
            whole = re.sub(rf"(?<![\w$]){re.escape(word)}(?![\w$])", name, text, flags=re.IGNORECASE)
        else:
            whole = f"{text}{ANSWER}{answer}"
        reply = self.decided(whole)
        same = reply.tool == question.tool or question.anywhere
        return (whole, reply) if same and (reply.calls or reply.asks) else None

    def decided(self, text: str, place: Instance | None = None) -> Reply:
        """What one request comes to; in one database, when that is known."""
        wording = Wording(text)
        if not self.world.instances:
            return Reply("No database is attached yet. Attach one: %opsagent attach postgresql|mongodb NAME --prompt.")
        places = [place] if place else self._places(wording)
        bare = Wording(IN_PLUGIN.sub("", text)) if self.named(wording) else wording
        found = [(place, self._candidates(bare, place)) for place in places]
        place, candidates = max(found, key=lambda pair: pair[1][0].score if pair[1] else 0)
        best = candidates[0] if candidates else None
        places = _fitting(found, best) or places
        if CHECKUP.search(wording.rest) and not wording.sql and (best is None or not best.tool.changes):
            return self._everything(places)
        if best is None or (not best.tool.changes and (best.score < THRESHOLD or self._unable(wording, place))):
            return self._declined(wording, place)
        if len(places) > 1:
            return self._which_database(places, best.tool)
        return self._checked(best, wording, place)

    def _candidates(self, wording: Wording, place: Instance) -> list[Candidate]:
        return self.world.router(place.plugin).find(wording, self.world.names(place.name))

    def _places(self, wording: Wording) -> list[Instance]:
        """The databases that a request can be about: the one it names, the one in focus, the ones that have the name."""
        words = set(wording.tokens)
        everywhere = list(self.world.instances)
        focused = [instance for instance in everywhere if instance.name == self.world.focus]
        kinds = {stem(word) for word in words} & set(TABLES)
        having = [instance for instance in everywhere if self._has_one_of(instance, words)]
        fitting = [instance for instance in having if kinds & self._kinds(instance)] if len(kinds) == 1 else []
        return self.named(wording) or focused or fitting or having or everywhere

    def named(self, wording: Wording) -> list[Instance]:
        """The databases that a request names: by their names, else by what they are."""
        words = set(wording.tokens)
        by_name = [instance for instance in self.world.instances if instance.name.lower() in words]
        return by_name or [
            instance for instance in self.world.instances if any(_is_plugin(word, instance.plugin) for word in words)
        ]

    def without_places(self, text: str) -> str:
        """A request without the names of databases and of what they are."""
        names = {instance.name.lower() for instance in self.world.instances}
        plugins = {instance.plugin for instance in self.world.instances}

        def kept(found: re.Match[str]) -> str:
            word = found[0].lower()
            return "" if word in names or any(_is_plugin(word, plugin) for plugin in plugins) else found[0]

        return re.sub(r"[\w$]+", kept, text)

    def changing(self, plain: str) -> str:
        """The verb by which a request commands a change of any kind; empty when it does not."""
        wording = Wording(plain)
        return "" if wording.wonders else next((head for head, _ in wording.commands() if head in CHANGING), "")

    def _kinds(self, instance: Instance) -> set[str]:
        """What a database calls that which holds its rows or documents."""
        return set(self.world.names(instance.name).catalog.names) & set(TABLES)

    def _has_one_of(self, instance: Instance, words: set[str]) -> bool:
        names = self.world.names(instance.name)
        return any(names.exact(kind, word) for kind in ("table", "index") for word in words)

    def _which_database(self, places: Sequence[Instance], tool: Tool) -> Reply:
        names = " or ".join(place.name for place in places)
        return Reply(f"Which database: {names}?", asks=True, tool=tool.full_name, anywhere=True)

    def _everything(self, places: Sequence[Instance]) -> Reply:
        """The plugin's diagnosis; else a look at everything that can be looked at without an argument."""
        if len(places) > 1:
            return self._which_database(places, self.world.tools[0])
        tools = self.world.router(places[0].plugin).tools
        if tool := next((tool for tool in tools if tool.name == DIAGNOSIS), None):
            return Reply(calls=(Wanted(tool, {}, places[0].name),), tool=tool.full_name, sure=True)
        looks = tuple(self._looks(places[0]))
        return Reply(f"Looking at everything I can look at on {places[0].name}.\n\n", looks, sure=True)

    def _looks(self, place: Instance) -> Iterator[Wanted]:
        for tool in self.world.router(place.plugin).tools:
            takes = {arg.slot for arg in tool.slots.values()}
            required = any(field.is_required() for field in tool.arguments.model_fields.values())
            if not tool.changes and not required and "sql" not in takes:
                yield Wanted(tool, {}, place.name)

    # -- what cannot be done

    def _unable(self, wording: Wording, place: Instance) -> bool:
        """Whether a change is wanted that no tool was found for, or a statement is to be run that changes something."""
        bare = not wording.rest.strip(" ;\n") and not re.match(r"select\b|with\b", wording.sql, re.IGNORECASE)
        wants = self.world.router(place.plugin).wants_change(wording) and not wording.wonders
        return bare if wording.sql else bool(wants)

    def _declined(self, wording: Wording, place: Instance) -> Reply:
        router = self.world.router(place.plugin)
        if wording.sql:
            return Reply("I do not run statements. I can show how one would be executed: “explain …”.")
        if verb := router.wants_change(wording):
            can = "\n".join(f"- {answers.example(tool)}" for tool in router.tools if tool.changes)
            return Reply(
                f"I have no tool for that ({verb}), so nothing was run. What I can change, with approval:\n{can}"
            )
        return Reply(f"I did not understand that, so I did nothing. {self.abilities()}")

    def abilities(self) -> str:
        """What can be asked for, by example."""
        plugins = {instance.plugin for instance in self.world.instances}
        tools = [tool for tool in self.world.tools if tool.plugin in plugins] or list(self.world.tools)
        lines = [f"- {answers.example(tool)}{' (with approval)' if tool.changes else ''}" for tool in tools]
        return "\n".join(["What I can do:", *lines])

    # -- what is still open

    def _checked(self, best: Candidate, wording: Wording, place: Instance) -> Reply:
        tool, clear = best.tool, bool(best.command) or best.score > CLEAR
        if question := self._question(best, wording, place):
            return replace(question, asks=True, tool=tool.full_name, sure=bool(best.command))
        wanted = [Wanted(tool, arguments, place.name) for arguments in best.filling.calls()]
        if len(wanted) > AT_ONCE:
            return Reply(f"That is {len(wanted)} at once; name {AT_ONCE} at most.", tool=tool.full_name)
        try:
            for call in wanted:
                tool.parse(call.arguments)
        except InvalidArguments as error:
            return Reply(str(error), asks=True, tool=tool.full_name)
        bare = wording.sql and not wording.rest.strip(" ;\n")
        plan = "I do not run statements; this is how the server would execute it." if bare else ""
        text = WAITS if tool.changes else plan
        return Reply(f"{text}\n\n" if text else "", tuple(wanted), tool=tool.full_name, sure=clear)

    def _question(self, best: Candidate, wording: Wording, place: Instance) -> Reply | None:
        """What must be asked before the call is made; a change asks sooner than a look."""
        filling, tool, names = best.filling, best.tool, self.world.names(place.name)
        if filling.unknown:
            return _no_such(*filling.unknown[0], names, place)
        if tool.changes and filling.guessed:
            guess = filling.guessed[0]
            return Reply(f"There is no {guess.word}. Did you mean {guess.name}?", meant=(guess.word, guess.name))
        if missing := filling.missing or _statement_missing(tool, filling) or _object_missing(tool, filling):
            return Reply(_which(tool, missing[0], filling, names, wording))
        return _doubt(tool, filling, wording) if tool.changes else None


def _fitting(found: Sequence[tuple[Instance, Sequence[Candidate]]], best: Candidate | None) -> list[Instance]:
    """The databases that a request may be about by what it asks for; for a change every one that could be meant."""
    if best is None:
        return [place for place, _ in found]
    least = THRESHOLD if best.tool.changes else max(THRESHOLD, best.score - APART)

    def may(candidates: Sequence[Candidate]) -> bool:
        return any(each.score >= least and each.tool.changes >= best.tool.changes for each in candidates[:1])

    return [place for place, candidates in found if may(candidates)]


def _is_plugin(word: str, plugin: str) -> bool:
    """Whether a word says what a database is: "postgresql", "postgres", "mongo", "pg"."""
    return word == plugin or (len(word) >= 5 and plugin.startswith(word)) or SHORT.get(word) == plugin


def _is_request(text: str) -> bool:
    """Whether a text asks or commands by itself, rather than naming what was asked for."""
    wording = Wording(text)
    return wording.wonders or any(head in LOOKING or head in CHANGING for head, _ in wording.commands())


def _doubt(tool: Tool, filling: Filling, wording: Wording) -> Reply | None:
    """What keeps a change from being asked for although all its arguments are there."""
    if len(filling.several[1]) > 1 and re.search(r"\b(?:not|except|but|without|than)\b", wording.rest):
        return Reply(f"Which of them: {', '.join(filling.several[1])}?")
    if not filling.unread:
        return None
    words = ", ".join(f"“{word}”" for word in filling.unread[:5])
    return Reply(
        f"What does {words} mean here? I do not leave words out of a change. Say it without, or run it directly: "
        f"%opsagent run {tool.full_name}, which takes {tool.usage()}."
    )


def _statement_missing(tool: Tool, filling: Filling) -> tuple[str, ...]:
    """A tool that takes a statement, or the id of one, is not called without either."""
    subjects = [name for name, arg in tool.slots.items() if arg.slot in {"sql", "query_id"}]
    return () if not subjects or any(name in filling.values for name in subjects) else tuple(subjects[:1])


def _object_missing(tool: Tool, filling: Filling) -> tuple[str, ...]:
    """A change whose objects are all optional, such as a table or an index, is not asked for without any."""
    kinds = [name for name, arg in tool.slots.items() if arg.slot in NAMED]
    named = any(name in filling.values or name == filling.several[0] for name in kinds)
    required = any(field.is_required() for field in tool.arguments.model_fields.values())
    return () if not tool.changes or named or required else tuple(kinds[:1])


def _no_such(kind: str, word: str, names: Names, place: Instance) -> Reply:
    near = names.near(kind, word)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" Which {kind}?"
    meant = (word, near[0]) if len(near) == 1 else ("", "")
    return Reply(f"There is no {kind} {word} in {place.name}.{hint}", meant=meant)


def _which(tool: Tool, argument: str, filling: Filling, names: Names, wording: Wording) -> str:
    kind = tool.slots[argument].slot
    match kind:
        case "table" | "collection" | "index" | "role" | "database":
            return f"Which {kind}? {_some(_likely(kind, names, wording))}".strip()
        case "columns" | "column":
            holders = {name: arg.slot for name, arg in tool.slots.items() if arg.slot in TABLES}
            tables = [name for name in holders if name in filling.values]
            if not tables:
                holder = next(iter(holders.values()), "table")
                return f"Of which {holder}? {_some(names.catalog.names.get(holder, ()))}".strip()
            table = str(filling.values[tables[0]])
            return f"Which column of {table}, or which columns? {_some(names.columns(table), 'It has')}".strip()
        case "pid":
            if argument != "pid":
                return f"Which {argument}? It is {tool.slots[argument].help}."
            return "Which process id (pid)? “show locks” and “show connection stats” list them."
        case "sql" | "query_id":
            return "Which statement? Paste it, or name the query id that “show me slow queries” lists."
    return f"What is the {argument.replace('_', ' ')}? ({tool.slots[argument].help})"


def _likely(kind: str, names: Names, wording: Wording) -> Sequence[str]:
    """Names of that kind, those first that carry the name of a table in the request."""
    held = names.catalog.names.get(kind, ())
    tables = [table for word in wording.tokens if (table := names.exact("table", word))]
    near = [name for name in held if any(table.rpartition(".")[2] in name for table in tables)]
    return near or held


def _some(names: Sequence[str], before: str = "For example") -> str:
    return f"{before}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}." if names else ""
