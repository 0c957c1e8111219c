"""Cases for choosing the held-out set by hash.

Written by somebody who had not read the code ("Evaluation split by hash"; "pairs from difference-set
documents kept out of the set"). No hash is given there, so these are PROPERTIES of any function

    choose(items, share) -> set of positions held out

where an item is {"id": str, "text": str, "source": str}. `wrong(choose)` runs them all and
returns the names of those that fail; `reference` below passes. Adapt your own in two lines.

Decisions (the request leaves them open):
  what is hashed  = the text, not the id nor the place: equal text under two ids falls together,
                    else a held-out example is also trained on. An edited text is a new text.
  unicode         = NFC first: "é" as one code point and as two are the SAME text (they look the
                    same and would leak). NFKC is NOT applied: a ligature "ﬁ" and "fi" are two.
                    White space and case are part of the text.
  share           = a finite number, 0 <= share <= 1, no bool, no string; the choice is
                    hash < share, so a larger share only adds.
  a document and all pairs made from it fall together (hash the document for its pairs).
"""

from __future__ import annotations

import hashlib
import math
import random
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, TypedDict


class Item(TypedDict):
    id: str
    text: str
    source: str


Choose = Callable[[Sequence[Item], Any], set[int]]


class Case(TypedDict):
    name: str
    why: str
    kind: str  # the key into TESTS
    items: list[Item]  # the input
    after: list[Item]  # the input of the second call, where there is one
    shares: list[Any]
    answer: str  # what must hold


def item(identifier: str, text: str, source: str = "s") -> Item:
    return {"id": identifier, "text": text, "source": source}


def reference(items: Sequence[Item], share: Any) -> set[int]:
    """Slow and obvious: SHA-256 of the NFC text, its first eight bytes as a number in [0, 1)."""
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise ValueError(f"share: {share!r} is not a number")
    if not math.isfinite(share) or not 0 <= share <= 1:
        raise ValueError(f"share: {share!r} is not between 0 and 1")
    chosen: set[int] = set()
    for place, one in enumerate(items):
        text = unicodedata.normalize("NFC", one["text"])
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        # compared as whole numbers: 2**64 - 1 over 2**64 rounds to 1.0 as a double
        numerator, denominator = float(share).as_integer_ratio()
        if int.from_bytes(digest[:8], "big") * denominator < numerator * 2**64:
            chosen.add(place)
    return chosen


def some(n: int, start: int = 0) -> list[Item]:
    return [item(f"id-{i}", f"Text number {i} of the corpus.", f"s{i % 3}") for i in range(start, start + n)]


def _shuffled(items: list[Item], seed: int) -> list[Item]:
    copy = list(items)
    random.Random(seed).shuffle(copy)
    return copy


_BASE = some(2000)
_ACCENT = [f"caf\u00e9 no. {i}, \u00c5ngstr\u00f6m" for i in range(300)]
_LIGATURE = [f"of\ufb01ce no. {i}" for i in range(300)]
_WIDE = [f"\uff21\uff22 no. {i}" for i in range(300)]


def _texts(texts: list[str], prefix: str = "t") -> list[Item]:
    return [item(f"{prefix}{i}", text) for i, text in enumerate(texts)]


_RAW: list[tuple[str, str, str, list[Item], list[Item], list[Any], str]] = [
    (
        "same call twice",
        "Random or per-process hashing (Python's hash()) would differ.",
        "same texts",
        _BASE,
        _BASE,
        [0.1],
        "the same texts are held out",
    ),
    (
        "other order",
        "Reading order depends on the file system.",
        "same texts",
        _BASE,
        _shuffled(_BASE, 1),
        [0.1],
        "the same texts are held out",
    ),
    (
        "reversed",
        "A choice by running number would turn over.",
        "same texts",
        _BASE,
        _BASE[::-1],
        [0.5],
        "the same texts are held out",
    ),
    (
        "other ids",
        "The same data from another export with other ids: same split.",
        "same texts",
        _BASE,
        [item(f"new-{i}", x["text"], x["source"]) for i, x in enumerate(_BASE)],
        [0.1],
        "the same texts are held out (decision: the text is hashed)",
    ),
    (
        "other source label",
        "A renamed source or moved file must not move examples.",
        "same texts",
        _BASE,
        [item(x["id"], x["text"], "other/path.jsonl") for x in _BASE],
        [0.1],
        "the same texts are held out",
    ),
    (
        "a subset",
        "Whether an item is held out depends on nothing but itself.",
        "same texts on common",
        _BASE,
        _BASE[500:900],
        [0.2],
        "of the common texts the same are held out",
    ),
    (
        "more data next night",
        "Last night's held-out texts stay held out when data is added.",
        "same texts on common",
        _BASE,
        some(500, 2000) + _BASE,
        [0.2],
        "of the common texts the same are held out",
    ),
    (
        "one item alone",
        "No minimum of one per call: a lone item is held out iff in the whole.",
        "same texts on common",
        _BASE,
        _BASE[7:8],
        [0.5],
        "as in the whole",
    ),
    ("empty", "No items: nothing held out, no crash.", "none", [], [], [0.0, 0.1, 1.0], "the empty set"),
    ("share 0", "Nothing, though some hash may be 0.", "none", _BASE, [], [0, 0.0, -0.0], "the empty set"),
    (
        "share 1",
        "Everything, though some hash may be the largest.",
        "all",
        _BASE,
        [],
        [1, 1.0],
        "all positions",
    ),
    (
        "a share too small to see",
        "1e-12 of 2,000 is none (2e-9 likely).",
        "none",
        _BASE,
        [],
        [1e-12, 5e-324],
        "the empty set",
    ),
    (
        "growing shares",
        "0.01 is inside 0.02 is inside 0.5: old held-out data never trains.",
        "nested",
        _BASE,
        [],
        [0.0, 0.001, 0.01, 0.02, 0.1, 0.1 + 1e-9, 0.5, 0.999, 1.0],
        "each set is within the next",
    ),
    (
        "the share of 100,000",
        "Near what is asked: within five standard deviations.",
        "share",
        some(100_000),
        [],
        [0.01, 0.1, 0.5],
        "|count - n p| <= 5 sqrt(n p (1 - p)) + 1",
    ),
    (
        "the share within each source",
        "The hash must not follow the source.",
        "share by source",
        some(30_000),
        [],
        [0.1],
        "the same bound within each source",
    ),
    (
        "numbered texts",
        "Texts that differ in one digit: a weak hash (crc, sum) clusters.",
        "share",
        [item(str(i), str(i)) for i in range(20_000)],
        [],
        [0.1],
        "the same bound",
    ),
    (
        "texts with a common long beginning",
        "A hash of the first 1,000 characters falls together.",
        "share",
        [item(str(i), "x" * 5000 + str(i)) for i in range(3000)],
        [],
        [0.3],
        "the same bound",
    ),
    (
        "texts with a common long end",
        "And one of the last 1,000.",
        "share",
        [item(str(i), str(i) + "x" * 5000) for i in range(3000)],
        [],
        [0.3],
        "the same bound",
    ),
    (
        "equal text under many ids",
        "Twenty copies each: all or none, else it leaks.",
        "equal together",
        [item(f"{i}-{k}", f"text {i}") for i in range(200) for k in range(20)],
        [],
        [0.1, 0.5],
        "equal texts are all in or all out",
    ),
    (
        "one text 10,000 times",
        "A share of 0.1 gives all or nothing here, and that is right.",
        "equal together",
        [item(str(i), "the same") for i in range(10_000)],
        [],
        [0.1, 0.5, 0.9],
        "all or none",
    ),
    (
        "same id, other text",
        "Ids that repeat over files must not tie different texts.",
        "share",
        [item("0", f"text {i}") for i in range(5000)],
        [],
        [0.2],
        "the bound of the share: ids decide nothing",
    ),
    (
        "composed and decomposed accents",
        "NFC and NFD of one text look alike: fall together.",
        "pairwise same",
        _texts([unicodedata.normalize("NFC", t) for t in _ACCENT]),
        _texts([unicodedata.normalize("NFD", t) for t in _ACCENT]),
        [0.5],
        "place by place the same (decision: NFC)",
    ),
    (
        "angstrom sign and letter",
        "U+212B is canonically U+00C5: NFC makes one of them.",
        "pairwise same",
        _texts([f"\u212b {i}" for i in range(300)]),
        _texts([f"\u00c5 {i}" for i in range(300)]),
        [0.5],
        "place by place the same (NFC)",
    ),
    (
        "ligatures",
        "NFKC would join 'ﬁ' and 'fi': different texts here.",
        "pairwise independent",
        _texts(_LIGATURE),
        _texts([unicodedata.normalize("NFKC", t) for t in _LIGATURE]),
        [0.5],
        "some differ (decision: no compatibility folding)",
    ),
    (
        "full-width letters",
        "The same for wide forms.",
        "pairwise independent",
        _texts(_WIDE),
        _texts([unicodedata.normalize("NFKC", t) for t in _WIDE]),
        [0.5],
        "some differ",
    ),
    (
        "upper and lower case",
        "Case is text (code!).",
        "pairwise independent",
        _texts([f"select {i} from t" for i in range(300)]),
        _texts([f"SELECT {i} FROM T" for i in range(300)]),
        [0.5],
        "some differ",
    ),
    (
        "trailing white space",
        "A newline more is another text (decision; strip() is defensible).",
        "pairwise independent",
        _texts([f"line {i}" for i in range(300)]),
        _texts([f"line {i}\n" for i in range(300)]),
        [0.5],
        "some differ",
    ),
    (
        "empty text",
        "An empty string has a hash like any other.",
        "equal together",
        [item("a", ""), item("b", ""), item("c", " ")],
        [],
        [0.5],
        "no crash; a and b alike",
    ),
    (
        "lone surrogate",
        'JSON may hold "\\ud800": .encode() raises UnicodeEncodeError.',
        "no crash",
        [item("a", "\ud800"), item("b", "x\udfffy")],
        [],
        [0.5],
        "a set, or a ValueError that names the item; no UnicodeEncodeError out of the blue",
    ),
    (
        "null characters",
        "A C-string hash stops at the first one.",
        "share",
        [item(str(i), f"\x00\x00{i}") for i in range(3000)],
        [],
        [0.3],
        "the bound of the share",
    ),
    (
        "joining is not guessable",
        "('ab','c') and ('a','bc') must not be hashed as 'abc' both.",
        "share",
        [item("x" * i, "y" * (3000 - i), "z") for i in range(3000)],
        [],
        [0.3],
        "the bound of the share",
    ),
    (
        "one huge text",
        "20 MB in one text: hashed whole, in well under a second.",
        "no crash",
        [item("a", "lorem ipsum " * 1_700_000)],
        [],
        [0.5],
        "a set, quickly",
    ),
    (
        "share not a number",
        "NaN: hash < NaN is False, silently nothing.",
        "refused",
        _BASE[:5],
        [],
        [float("nan")],
        "an error naming the setting",
    ),
    (
        "share outside",
        "-0.1, 1.0000001 and 10 (percent meant).",
        "refused",
        _BASE[:5],
        [],
        [-0.1, math.nextafter(1.0, 2.0), 10, float("inf"), float("-inf")],
        "an error naming the setting",
    ),
    (
        "share of the wrong kind",
        "True is 1 in Python: everything would be held out.",
        "refused",
        _BASE[:5],
        [],
        [True, False, "0.1", None, [0.1]],
        "an error naming the setting",
    ),
]

CASES: list[Case] = [
    {
        "name": name,
        "why": why,
        "kind": kind,
        "items": items,
        "after": after,
        "shares": shares,
        "answer": answer,
    }
    for name, why, kind, items, after, shares, answer in _RAW
]


class Layout(TypedDict):
    name: str
    why: str
    files: dict[str, bytes]  # file name -> content; every layout holds the same 40 examples


def _layouts() -> list[Layout]:
    import gzip
    import json

    rows = [{"id": f"i{i}", "text": f"Pr\u00fcfung {i}\nzweite Zeile"} for i in range(40)]

    def lines(part: list[dict[str, str]], end: str = "\n", **how: Any) -> bytes:
        return "".join(json.dumps(row, **how) + end for row in part).encode()

    flipped = [dict(reversed(list(row.items()))) for row in rows]
    return [
        {
            "name": "one file",
            "why": "The plain layout all others are compared with.",
            "files": {"a.jsonl": lines(rows)},
        },
        {
            "name": "four shards",
            "why": "Shard borders carry nothing.",
            "files": {f"{k}.jsonl": lines(rows[k * 10 : k * 10 + 10]) for k in range(4)},
        },
        {
            "name": "shards named the other way",
            "why": "Nor does the order of file names.",
            "files": {f"{9 - k}.jsonl": lines(rows[k * 10 : k * 10 + 10]) for k in range(4)},
        },
        {
            "name": "escaped and unescaped",
            "why": "\\u00fc and ü are one text: hash what is parsed, not the line.",
            "files": {"a.jsonl": lines(rows, ensure_ascii=False)},
        },
        {
            "name": "keys the other way round",
            "why": "Nor the order of keys.",
            "files": {"a.jsonl": lines(flipped)},
        },
        {
            "name": "spaces in the JSON",
            "why": "Nor white space outside the strings.",
            "files": {"a.jsonl": lines(rows, separators=(" , ", " : "))},
        },
        {
            "name": "windows line ends",
            "why": "Nor CRLF between the lines.",
            "files": {"a.jsonl": lines(rows, end="\r\n")},
        },
        {
            "name": "no newline at the end",
            "why": "The last example counts too.",
            "files": {"a.jsonl": lines(rows).rstrip(b"\n")},
        },
        {
            "name": "compressed",
            "why": "Nor gzip (where the reader takes it at all).",
            "files": {"a.jsonl.gz": gzip.compress(lines(rows), mtime=0)},
        },
    ]


LAYOUTS: list[Layout] = _layouts()


class Process(TypedDict):
    name: str
    why: str
    environment: list[dict[str, str]]
    answer: str


PROCESSES: list[Process] = [
    {
        "name": "other hash seed",
        "why": "Python's hash() of a str changes with PYTHONHASHSEED.",
        "environment": [{"PYTHONHASHSEED": "0"}, {"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "random"}],
        "answer": "the same texts in all three processes",
    },
    {
        "name": "other locale",
        "why": "Text encoded by the locale's encoding.",
        "environment": [{"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}],
        "answer": "the same texts in both processes",
    },
]


class Grouped(TypedDict):
    name: str
    why: str
    pairs: list[dict[str, str]]  # document, question, answer
    answer: str


GROUPS: list[Grouped] = [
    {
        "name": "five pairs of each document",
        "why": "A document held out for (c) whose pairs are trained on is no held-out document.",
        "pairs": [
            {"document": f"doc {i}", "question": f"q {i} {k}", "answer": f"a {i} {k}"}
            for i in range(100)
            for k in range(5)
        ],
        "answer": "all pairs of a document are in or out together, and with the document",
    },
    {
        "name": "one question over two documents",
        "why": "Equal pairs out of two documents: if either is held out the pair must not be trained on.",
        "pairs": [
            {"document": f"doc {i}", "question": "What is said?", "answer": "Nothing."} for i in range(50)
        ],
        "answer": "no pair (question + answer) is both in training and held out",
    },
    {
        "name": "held-out text also in the SFT set",
        "why": "The three sets are chosen apart; the "
        "same text must not be evaluated in one and trained on in another.",
        "pairs": [{"document": f"q {i}\na {i}", "question": f"q {i}", "answer": f"a {i}"} for i in range(50)],
        "answer": "nothing that is evaluated on occurs in what is trained on",
    },
]

OPEN: list[str] = [
    "What is hashed: id, text, or the pair of both? (here: the text)",
    "Unicode: NFC first (here), or bytes as they are?",
    "For a conversation: the first user turn, or all of it? For a pair: its document (here).",
    "Is the share of examples, or of tokens, or at least/most a number? With few examples the "
    "held-out set may come out EMPTY: allowed, with (a) then missing at promotion?",
    "A near-duplicate of a held-out example in the training set.",
    "May the split differ between runs by a seed? (if so: the seed must be in the cache key)",
]


def _raises(choose: Choose, items: Sequence[Item], share: Any) -> bool:
    try:
        choose(items, share)
    except (ValueError, TypeError):
        return True
    return False


def holds(case: Case, choose: Choose) -> bool:
    items, after, kind = case["items"], case["after"], case["kind"]
    for number, share in enumerate(case["shares"]):
        if kind == "refused":
            if not _raises(choose, items, share):
                return False
            continue
        if kind == "no crash":
            try:
                choose(items, share)
            except UnicodeEncodeError:
                return False
            except ValueError:
                pass
            continue
        chosen = choose(items, share)
        texts = {items[i]["text"] for i in chosen}
        if kind == "none" and chosen:
            return False
        if kind == "all" and chosen != set(range(len(items))):
            return False
        if kind in ("same texts", "same texts on common"):
            other = {after[i]["text"] for i in choose(after, share)}
            common = {x["text"] for x in items} & {x["text"] for x in after}
            if texts & common != other & common:
                return False
        if kind == "nested" and number and not choose(items, case["shares"][number - 1]) <= chosen:
            return False
        if kind == "share" and not near(len(chosen), len(items), share):
            return False
        if kind == "share by source":
            for source in {x["source"] for x in items}:
                places = {i for i, x in enumerate(items) if x["source"] == source}
                if not near(len(chosen & places), len(places), share):
                    return False
        if kind == "equal together" and any(
            (i in chosen) != (x["text"] in texts) for i, x in enumerate(items)
        ):
            return False
        if kind in ("pairwise same", "pairwise independent"):
            differ = len(chosen ^ choose(after, share))
            if (differ > 0) != (kind == "pairwise independent"):
                return False
    return True


def near(count: int, n: int, share: float) -> bool:
    return abs(count - n * share) <= 5 * math.sqrt(n * share * (1 - share)) + 1


def wrong(choose: Choose) -> list[str]:
    """The names of the cases that do not hold for a choice of your own."""
    return [case["name"] for case in CASES if not holds(case, choose)]


if __name__ == "__main__":
    assert wrong(reference) == [], wrong(reference)
    assert len({case["name"] for case in CASES}) == len(CASES)
    print(len(CASES) + len(LAYOUTS) + len(PROCESSES) + len(GROUPS), "cases")
