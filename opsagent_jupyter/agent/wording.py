"""How a request is worded: its statement cut out, its sentences, the words that carry meaning, and what it commands.

Plain English of database administrators, no plugin's words: those are declared on the tools.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA


def word_set(text: str) -> frozenset[str]:
    """The words of a text, each once."""
    return frozenset(text.split())


STOP = word_set(
    """
    a about above actually after again against all also am an and another any anybody anyone anything anywhere
    are as at be because been before being both but by can check could currently database databases db did
    display do does doing done each else ever every everyone everything find for from further get getting give
    go going good got had has have having he hello her here hey hi him his how however i id if im in into is
    isnt it its just kind know let lets like list look looking make many may me might mine more most much must
    my need no not now of off ok okay on one only or other our out over own per please pls plz possible pull
    quick quickly really right run s same see seem shall she should show so some somebody someone something soon
    still such t take taking tell than thank thanks that the their them then there thereof these they thing
    things this those through to today too try u under until up us very via want wanna was we were what whats
    when where wheres whether which while who whom whos whose why will with within would yes yet you your
    """
)
#: Words of one meaning, written as the first of each group.
GROUPS = """
    index idx idxs idxes indexes indices indexs indexing
    query queries statement statements stmt stmts sqls
    connection connections conn conns session sessions client clients connected connect connects
    replication replicating replicate repl
    replica replicas standby standbys slave slaves follower followers secondary secondaries
    lag lags lagging behind delay delayed delays
    slow slower slowest slowly slowness sluggish fast faster speed performance perf
    lock locks locked locking
    block blocks blocked blocking blocker blockers
    wait waits waiting waited
    stuck hanging hangs hung hang frozen freezes
    table tables relation relations
    collection collections coll colls
    operation operations op ops
    document documents doc docs
    size sizes big bigger biggest large larger largest huge
    disk space storage
    row rows tuple tuples record records
    dead garbage
    statistics stats stat statistic
    plan plans
    vacuum vacuumed vacuuming vacuums autovacuum
    analyze analyse analyzed analysed analyzing analysing
    create add build make put creating adding building making
    drop remove delete dropping removing deleting
    kill terminate killing terminating
    cancel cancelling canceling abort
    refresh update renew recompute gather recalculate refreshing updating
    duplicate duplicates duplicated redundant dup dups dupe dupes
    process processes backend backends
    count counts number numbers
    limit limits maximum max
    time times duration durations
    usage used use uses using
"""
SAME = {word: group.split()[0] for group in GROUPS.strip().splitlines() for word in group.split()}
#: Phrases that say one thing in several words.
IDIOMS = (
    (r"\bget(?:ting)? rid of\b|\bthrow (?:away|out)\b", "drop"),
    (r"\bset up\b", "create"),
    (r"\bstep(?:ping)?[ -]down\b", "stepdown"),
    (r"\blet (?!us\b|me\b)([\w.]+) (?=(?:read|select|insert|update|delete)\b)", r"allow \1 to "),
    (
        (
            r"\b(?:(?:i['\u2019]?d|i would|we would|we['\u2019]?d) like|(?:i|we) (?:want|need)"
            r"|(?:can|could|may) (?:i|we) (?:have|get))(?: to have)? an?(?= (?:\w+ ){0,2}?index (?:on|for|over)\b)"
        ),
        "create a",
    ),
    (r"\b(?:nobody|no one|noone|nothing|never|not|isnt|arent)\s+(?:ever\s+|being\s+)?us(?:e|es|ed|ing)\b", "unused"),
    (r"\b(don|doesn|didn|isn|aren|wasn|won|can|couldn|shouldn|wouldn)['\u2019]t\b", r"\1t"),
    (r"\bdo not\b", "dont"),
    (r"\bif (?:not )?exists\b", " "),
    *((rf"\b{word}\b", str(number)) for word, number in {"three": 3, "five": 5, "ten": 10, "twenty": 20}.items()),
    (r"['\u2019](s|re|d|ll|ve|m)\b", r"\1"),
)
#: What may stand before a verb that commands.
POLITE = word_set(
    """
    please pls plz kindly just now then ok okay so yes yeah yep sure hey hi hello and also lets let us me go
    ahead can could would will you u i we id wed want wanna need like to try opsagent
    """
)
ASKING = re.compile(
    r"^(?:(?:and|but|so|ok|hey|hi)\s+)*(?:who|whom|whose|when|why|what|whats|which|where|how|hows|is|are|was|were|has|"
    r"have|had|did|does|do|should|shall|may|might|(?:can|could|would|will)\s+(?!you\b|u\b|please\b))\b"
)
#: A request that wants to know first, or leaves the decision to us.
HESITATING = re.compile(
    r"\b(?:(?:is|would|will) (?:it|that|this)|should (?:i|we)|what happens|what would|what if"
    r"|how long|how risky|safe|risky|dangerous|impact"
    r"|(?:before|after|when|whether|unless|until|once|in case) (?:i|we|you|it|to)"
    r"|if (?!(?:you can|possible|needed|necessary|you please|so)\b))\b"
)
#: What follows is a reason, not part of the command.
REASON = re.compile(r"\b(?:because|since|as it|so that|cause|coz|it is|its|due to)\b|[\u2013\u2014]")
#: Verbs that want a change, of this product's tools or of others.
CHANGING = word_set(
    """
    create drop alter update insert delete truncate grant revoke kill terminate cancel restart reboot shutdown
    stop start set enable disable rename restore failover promote reindex cluster reset vacuum move copy
    resize rollback commit upgrade install uninstall migrate purge wipe erase execute merge refresh stepdown
    """
)
SQL = re.compile(
    r"""(?isx)
    (?:\bexplain\b\s*(?:\([^)]*\)\s*|(?:analy[sz]e|verbose)\b\s*)*)?
    (?P<sql>\b(?:
        select\b(?!\s*,|\s+(?:on|and)\b)(?=.*?\bfrom\b|\s+[\w.]+\s*\(|\s+[\d*'])
      | with\s+(?:recursive\s+)?\w+\s*(?:\([^)]*\)\s*)?as\s*(?:(?:not\s+)?materialized\s*)?\(
      | insert\s+into\b | delete\s+from\b | merge\s+into\b | update\s+[\w."]+\s+(?:as\s+\w+\s+|\w+\s+)?set\b
    ).*)"""
)
#: What people write after a statement that is no part of it; cut off again and again until none is left.
TAIL = re.compile(
    r"""(?isx)
    \s+(?:(?:take|takes|taking|took|run|runs|running|is|being|be|perform|performs|getting|gets|execute|executes)
        \s+(?:\w+\s+){0,3}?(?:slow|slowly|long|longer|forever|ages|time|minutes|seconds|badly|bad|fast|faster)\b.*
      | (?:so|too|very)\s+(?:slow|long|bad)\b.*
      | (?:please|pls|plz|thanks|thx)\W* )$
    | (?<=[\w'")])\s*\?(?:\s+[a-z].*)?$
    | (?<=[\w'")])\.\s+[a-z].*$
    | ,\s*(?:why|can\s+you|please|it\s+is|its|it\s+takes|is\s+it|is\s+this|and\s+why)\b.*$
    | (?<!from)(?<!join)(?<!by)(?<!as)(?<!,)(?<!=)\s+(?:slow|slowly|sluggish)$
    | [\s;?!]+$"""
)
#: (ending, shortest word it is cut from, what stands for it)
ENDINGS = (("ies", 5, "y"), ("sses", 6, "ss"), ("xes", 5, "x"), ("ches", 6, "ch"), ("ing", 6, ""), ("ed", 5, ""))
TOKEN = re.compile(r"\"[^\"]+\"|[\w$]+(?:\.[\w$]+)*")


#: Stands between a request and what the person answered when they were asked back.
ANSWER = "\x1e"


@dataclass(frozen=True)
class Wording:
    """A person's request, taken apart."""

    text: str

    @cached_property
    def _parts(self) -> tuple[str, str]:
        text = re.sub(
            r"```(?:\w+\n)?(.*?)```|`([^`]*)`", lambda found: f"\n{found[1] or found[2]}\n", self.text, flags=re.DOTALL
        )
        found = SQL.search(text)
        if not found:
            return text, ""
        statement = found["sql"]
        while (shorter := TAIL.sub("", statement).strip()) != statement:
            statement = shorter
        return f"{text[: found.start('sql')]} {found['sql'][len(statement) :]}", statement

    @property
    def sql(self) -> str:
        """The statement within the request; empty when there is none."""
        return self._parts[1]

    @cached_property
    def rest(self) -> str:
        """The request without its statement, in lower case, idioms made plain."""
        text = self._parts[0].lower()
        for idiom, plain in IDIOMS:
            text = re.sub(idiom, plain, text)
        return text

    @property
    def answers(self) -> list[str]:
        """What the person added when they were asked."""
        return self.rest.split(ANSWER)[1:]

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The sentences of ``rest``, each with its question mark."""
        return tuple(
            part.strip() for part in re.findall(r"(?:[^.?!;\n\x1e]|\.(?=\w))+\??", self.rest) if part.strip(" ?")
        )

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The words of ``rest``, names whole."""
        return tuple(tokens(self.rest))

    def commands(self) -> Iterator[tuple[str, str]]:
        """The verbs that command something, each with the words that follow it."""
        for sentence in self.sentences:
            if not _asks(sentence):
                yield from _heads(sentence)

    @cached_property
    def wonders(self) -> bool:
        """Whether the person wants to know something first: no change is taken from such a request."""
        return bool(HESITATING.search(self.rest)) or any(map(_asks, self.sentences))


def _asks(sentence: str) -> bool:
    kindly = re.match(r"(?:\w+\s+)?(?:can|could|would|will) (?:you|u|please)\b", sentence)
    return bool(ASKING.match(sentence)) or (sentence.endswith("?") and not kindly)


def _heads(sentence: str) -> Iterator[tuple[str, str]]:
    """The first word of each clause that is no politeness, with what follows it."""
    cut = REASON.split(sentence)[0]
    starts = [0, *(found.end() for found in re.finditer(r",|\band\b|\bthen\b|\bplease\b", cut))]
    for start in starts:
        words = cut[start:].split()
        while words and (bare := words[0].strip(",:!?.\"'()")) in POLITE:
            words.pop(0)
        if words and bare:
            yield bare.split("(")[0], " ".join(words)


#: A verb that points back to what was spoken of: “drop it then”.
DOES = re.compile(
    r"^\W*(?:(?:please|pls|ok|okay|yes|so|then|now|just|lets)\W+)*(\w+)\s+(?:it|that|this|that one|this one)"
    r"(?:\W+(?:then|now|please|pls|too|thanks|again))*\W*$"
)
#: Places in a list, by how they are said.
ORDINALS = {
    word: number
    for number, words in enumerate(
        (
            "first 1st top",
            "second 2nd",
            "third 3rd",
            "fourth 4th",
            "fifth 5th",
            "sixth 6th",
            "seventh 7th",
            "eighth 8th",
        ),
        1,
    )
    for word in words.split()
} | {"last": -1}
NUMBERED = re.compile(r"(?:#|\b(?:number|nr|no|finding|problem|issue|point|item)\s*#?)\s*(\d{1,2})\b")


def ordinal(text: str) -> int:
    """The place in a list that is spoken of, from 1; -1 for the last, 0 when none is."""
    if found := NUMBERED.search(text):
        return int(found[1])
    said = re.findall(r"\b[\w]+\b", text)
    return next((ORDINALS[word] for word in said if word in ORDINALS), 0)


def tokens(text: str) -> list[str]:
    """The words of a text, with dotted and quoted names whole."""
    return [word.strip('"') for word in TOKEN.findall(text)]


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A word's bare form, the same for its plural and its tenses, and for words that mean the same here."""
    if word in SAME:
        return SAME[word]
    for ending, least, put in ENDINGS:
        if word.endswith(ending) and len(word) >= least:
            word = word[: -len(ending)] + put
            break
    else:
        if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
            word = word[:-1]
    word = SAME.get(word, word)
    return word.rstrip("e") if len(word) > 4 and word not in SAME.values() else word


def meaning(words: Collection[str]) -> list[str]:
    """The stems of the words that carry meaning, in order."""
    return [stem(word) for word in words if word not in STOP]


def mended(word: str, known: Collection[str]) -> str:
    """The known word that was meant by a mistyped one; the word itself when none is near enough."""
    if word in known or word in STOP or not word.isalpha() or len(word) < 4:
        return word
    if len(word) == 4:
        swapped = (other for other in known if len(other) == 4 and sorted(other) == sorted(word))
        return next((other for other in swapped if OSA.distance(word, other) == 1), word)
    found = process.extractOne(word, known, scorer=fuzz.ratio, score_cutoff=80)
    return str(found[0]) if found else word


def means_verb(word: str, verb: str) -> bool:
    """Whether a word is that verb in its commanding form, one slip of the fingers allowed."""
    if word == verb or (SAME.get(word, word) == SAME.get(verb, verb) and not word.endswith(("ed", "ing"))):
        return True
    slipped = len(word) >= 5 and not word.endswith(("ed", "ing", "s")) and word.isalpha()
    return slipped and OSA.distance(word, verb) == 1
