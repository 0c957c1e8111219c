"""Cases for conversations longer than max_length: cut | drop | split_turns.

Written by somebody who had not read the code.

A conversation is a list of (role, tokens); `tokens` is the whole turn with its opening mark and
its turn end. ASSUMPTIONS:
  only assistant turns are learnt, all their `tokens` count as learnt (an implementation that
  learns all but the opening mark subtracts the mark's tokens per turn);
  no tokens stand outside the turns (no BOS); an example of sum <= max_length is untouched and
  counted nowhere; what is untouched is the same in all three modes.
  cut          keeps the first max_length tokens. A turn that is cut has no turn end. An example
               with no assistant token left is not trained on and is counted as dropped too.
  drop         leaves the example out, whole.
  split_turns  makes several examples at turn borders: each begins with the system turn (if any),
               goes on with whole exchanges (everything from a user turn to before the next user
               turn that follows an assistant turn), as many as fit; an exchange that does not fit
               even alone is left out and counted; every learnt turn is whole, learnt once, in order.
               The other reading (`prefix`): keep only the longest beginning of whole turns that
               ends in an assistant turn and fits, the rest is lost and counted.
`answer` is a list of examples, each a list of (turn index, kept tokens); `counted` says what is
reported. `prefix` is the other reading's example (None where nothing is left).
"""

from __future__ import annotations

from typing import TypedDict

Turn = tuple[str, int]
Piece = list[tuple[int, int]]  # (turn index, tokens kept of it)


class Counted(TypedDict):
    long: int  # 1 if the conversation was longer than max_length
    dropped: int  # 1 if nothing at all of it is trained on
    turns_lost: int  # assistant turns of which not a token is learnt
    turns_cut: int  # assistant turns learnt without their end
    learnt_tokens: int
    lost_tokens: int  # assistant tokens not learnt


class Case(TypedDict):
    name: str
    why: str
    turns: list[Turn]
    max_length: int
    mode: str
    answer: list[Piece] | str  # or "refused"
    counted: Counted | None
    prefix: Piece | None


def cut(turns: list[Turn], limit: int) -> list[Piece]:
    piece: Piece = []
    left = limit
    for index, (_, tokens) in enumerate(turns):
        kept = min(tokens, left)
        if kept:
            piece.append((index, kept))
        left -= kept
    return [piece] if any(turns[index][0] == "assistant" for index, _ in piece) else []


def exchanges(turns: list[Turn]) -> tuple[list[int], list[list[int]]]:
    """Leading system turns, then the exchanges (turn indices)."""
    head: list[int] = []
    groups: list[list[int]] = []
    for index, (role, _) in enumerate(turns):
        if role == "system" and not groups:
            head.append(index)
        elif not groups or (role == "user" and any(turns[i][0] == "assistant" for i in groups[-1])):
            groups.append([index])
        else:
            groups[-1].append(index)
    return head, groups


def split_turns(turns: list[Turn], limit: int) -> list[Piece]:
    head, groups = exchanges(turns)
    size = {index: tokens for index, (_, tokens) in enumerate(turns)}
    pieces: list[list[int]] = []
    current: list[int] = []
    for group in groups:
        if not any(turns[i][0] == "assistant" for i in group):
            continue  # a last user turn without an answer teaches nothing
        if sum(size[i] for i in head + current + group) <= limit:
            current = current + group
            continue
        if current:
            pieces.append(head + current)
        current = group if sum(size[i] for i in head + group) <= limit else []
    if current:
        pieces.append(head + current)
    return [[(i, size[i]) for i in piece] for piece in pieces]


def prefix(turns: list[Turn], limit: int) -> Piece | None:
    best: Piece | None = None
    used = 0
    piece: Piece = []
    for index, (role, tokens) in enumerate(turns):
        used += tokens
        if used > limit:
            break
        piece = [*piece, (index, tokens)]
        if role == "assistant":
            best = piece
    return best


def count(turns: list[Turn], limit: int, pieces: list[Piece]) -> Counted:
    kept: dict[int, int] = {}
    for piece in pieces:
        for index, tokens in piece:
            if turns[index][0] == "assistant":
                assert index not in kept
                kept[index] = tokens
    every = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    return {
        "long": int(sum(t for _, t in turns) > limit),
        "dropped": int(not pieces),
        "turns_lost": sum(i not in kept for i in every),
        "turns_cut": sum(i in kept and kept[i] < turns[i][1] for i in every),
        "learnt_tokens": sum(kept.values()),
        "lost_tokens": sum(turns[i][1] - kept.get(i, 0) for i in every),
    }


def reference(turns: list[Turn], limit: int, mode: str) -> list[Piece]:
    if limit <= 0 or mode not in ("cut", "drop", "split_turns"):
        raise ValueError("long_examples" if limit > 0 else "max_length")
    if sum(tokens for _, tokens in turns) <= limit:
        whole: Piece = [(i, tokens) for i, (_, tokens) in enumerate(turns)]
        return [whole] if any(role == "assistant" for role, _ in turns) else []
    if mode == "cut":
        return cut(turns, limit)
    return [] if mode == "drop" else split_turns(turns, limit)


def faults(turns: list[Turn], limit: int, pieces: list[Piece], mode: str) -> list[str]:
    """What must hold under every reading."""
    found: list[str] = []
    learnt = [i for piece in pieces for i, _ in piece if turns[i][0] == "assistant"]
    if any(sum(tokens for _, tokens in piece) > limit for piece in pieces):
        found.append("longer than max_length")
    if len(set(learnt)) != len(learnt):
        found.append("a turn learnt twice")
    if learnt != sorted(learnt):
        found.append("turns out of order")
    if any(not any(turns[i][0] == "assistant" for i, _ in piece) for piece in pieces):
        found.append("an example with nothing to learn")
    if mode != "cut" and any(tokens != turns[i][1] for piece in pieces for i, tokens in piece):
        found.append("a turn that is not whole")
    return found


S, U, A, T = "system", "user", "assistant", "tool"
MODES = ("cut", "drop", "split_turns")

_ROWS: list[tuple[str, str, list[Turn], int, tuple[str, ...]]] = [
    ("far below", "Untouched and counted nowhere.", [(U, 3), (A, 4)], 100, MODES),
    ("exactly the limit", "7 of 7: not long.", [(U, 3), (A, 4)], 7, MODES),
    (
        "one over",
        "8 of 7: cutting takes just the turn end - the worst token to lose.",
        [(U, 3), (A, 5)],
        7,
        MODES,
    ),
    ("one over through the user", "The same by a longer question.", [(U, 4), (A, 4)], 7, MODES),
    (
        "question fills it",
        "The limit falls exactly between question and answer: nothing learnt.",
        [(U, 7), (A, 4)],
        7,
        MODES,
    ),
    (
        "question over it",
        "Nothing of the answer is left; training on it divides 0 by 0.",
        [(U, 50), (A, 4)],
        7,
        MODES,
    ),
    ("one token of the answer", "A single learnt token is left by a cut.", [(U, 6), (A, 9)], 7, MODES),
    (
        "two exchanges, cut between",
        "The first exchange fills it exactly: no turn is cut, yet long.",
        [(U, 3), (A, 4), (U, 3), (A, 4)],
        7,
        MODES,
    ),
    (
        "two exchanges, cut in the second question",
        "First whole, then half a question unlearnt.",
        [(U, 3), (A, 4), (U, 3), (A, 4)],
        9,
        MODES,
    ),
    (
        "two exchanges, cut in the second answer",
        "First whole, second without its end.",
        [(U, 3), (A, 4), (U, 3), (A, 4)],
        12,
        MODES,
    ),
    (
        "the middle one too long",
        "Splitting keeps first and last and counts the middle.",
        [(U, 2), (A, 3), (U, 2), (A, 50), (U, 2), (A, 3)],
        10,
        MODES,
    ),
    (
        "the first too long",
        "A prefix keeps nothing, a split keeps the second.",
        [(U, 2), (A, 50), (U, 2), (A, 3)],
        10,
        MODES,
    ),
    (
        "all too long",
        "Nothing fits alone: everything is counted.",
        [(U, 2), (A, 50), (U, 2), (A, 60)],
        10,
        MODES,
    ),
    (
        "many small exchanges",
        "Twenty of 5 tokens in 12: two to an example, ten examples.",
        [(U, 2), (A, 3)] * 20,
        12,
        MODES,
    ),
    ("many small, an odd rest", "Seven of 5 in 12: the last stands alone.", [(U, 2), (A, 3)] * 7, 12, MODES),
    (
        "system turn repeated",
        "Each part carries the system turn: 2 + 5 + 5 = 12.",
        [(S, 2)] + [(U, 2), (A, 3)] * 4,
        12,
        MODES,
    ),
    ("system turn leaves room for one", "2 + 5 = 7 of 11.", [(S, 2)] + [(U, 2), (A, 3)] * 3, 11, MODES),
    (
        "system turn over the limit",
        "Nothing fits with it: dropped and counted.",
        [(S, 20), (U, 2), (A, 3)],
        10,
        MODES,
    ),
    ("system turn exactly the limit", "The same at the border.", [(S, 10), (U, 2), (A, 3)], 10, MODES),
    ("two system turns in front", "Both are repeated.", [(S, 1), (S, 1)] + [(U, 2), (A, 3)] * 4, 12, MODES),
    (
        "system turn in the middle",
        "Belongs to the exchange it stands in; not repeated.",
        [(U, 2), (A, 3), (S, 2), (U, 2), (A, 3)],
        8,
        MODES,
    ),
    (
        "ends with a user turn",
        "The last question has no answer and teaches nothing.",
        [(U, 2), (A, 3), (U, 9)],
        10,
        MODES,
    ),
    ("begins with the assistant", "A greeting first.", [(A, 4), (U, 2), (A, 3)], 7, MODES),
    ("no assistant turn", "Nothing to learn, long or not.", [(U, 20)], 10, MODES),
    (
        "no assistant turn, short",
        "Not long, and still nothing to learn: counted as dropped.",
        [(U, 2)],
        10,
        MODES,
    ),
    ("assistant only", "One answer without a question.", [(A, 20)], 10, MODES),
    (
        "tool turns inside an exchange",
        "Call, result and answer must not be parted.",
        [(U, 2), (A, 2), (T, 3), (A, 2), (U, 2), (A, 3)],
        10,
        MODES,
    ),
    (
        "tool result too long",
        "The exchange is left out whole; its first call is not learnt alone.",
        [(U, 2), (A, 2), (T, 30), (A, 2), (U, 2), (A, 3)],
        10,
        MODES,
    ),
    ("two user turns in a row", "Both are the question.", [(U, 2), (U, 2), (A, 3), (U, 2), (A, 3)], 8, MODES),
    (
        "two answers in a row",
        "Both belong to the same question.",
        [(U, 2), (A, 3), (A, 3), (U, 2), (A, 3)],
        9,
        MODES,
    ),
    ("empty answer", "A turn of marks alone (2 tokens).", [(U, 2), (A, 2), (U, 2), (A, 30)], 8, MODES),
    ("max_length one", "One token: nothing of use is left.", [(U, 2), (A, 3)], 1, MODES),
    ("no turns", "An empty conversation.", [], 10, MODES),
    ("huge", "A million tokens in one answer.", [(U, 5), (A, 1_000_000)], 2048, MODES),
    ("very many turns", "10,000 exchanges: no quadratic time.", [(U, 2), (A, 3)] * 10_000, 2048, MODES),
    ("max_length zero", "Refused, whatever the mode.", [(U, 2), (A, 3)], 0, MODES),
    ("mode misspelt", "A closed list.", [(U, 2), (A, 30)], 10, ("truncate", "", "CUT")),
]


def _case(name: str, why: str, turns: list[Turn], limit: int, mode: str) -> Case:
    case: Case = {
        "name": f"{name}, {mode or 'empty'}",
        "why": why,
        "turns": turns,
        "max_length": limit,
        "mode": mode,
        "answer": "refused",
        "counted": None,
        "prefix": None,
    }
    try:
        pieces = reference(turns, limit, mode)
    except ValueError:
        return case
    case["answer"] = pieces
    case["counted"] = count(turns, limit, pieces)
    case["prefix"] = prefix_of(turns, limit, mode)
    return case


def prefix_of(turns: list[Turn], limit: int, mode: str) -> Piece | None:
    if mode != "split_turns" or len(turns) > 1000:
        return None
    return prefix(turns, limit)


CASES: list[Case] = [
    _case(name, why, turns, limit, mode) for name, why, turns, limit, modes in _ROWS for mode in modes
]


class Summary(TypedDict):
    name: str
    why: str
    conversations: list[list[Turn]]
    max_length: int
    mode: str
    counted: Counted  # sums over all conversations
    examples: int  # trained on in the end


def _summary(name: str, why: str, conversations: list[list[Turn]], limit: int, mode: str) -> Summary:
    total: Counted = {
        "long": 0,
        "dropped": 0,
        "turns_lost": 0,
        "turns_cut": 0,
        "learnt_tokens": 0,
        "lost_tokens": 0,
    }
    examples = 0
    for turns in conversations:
        pieces = reference(turns, limit, mode)
        examples += len(pieces)
        one = count(turns, limit, pieces)
        total = {
            "long": total["long"] + one["long"],
            "dropped": total["dropped"] + one["dropped"],
            "turns_lost": total["turns_lost"] + one["turns_lost"],
            "turns_cut": total["turns_cut"] + one["turns_cut"],
            "learnt_tokens": total["learnt_tokens"] + one["learnt_tokens"],
            "lost_tokens": total["lost_tokens"] + one["lost_tokens"],
        }
    return {
        "name": name,
        "why": why,
        "conversations": conversations,
        "max_length": limit,
        "mode": mode,
        "counted": total,
        "examples": examples,
    }


_MIXED: list[list[Turn]] = [
    [(U, 3), (A, 4)],
    [(U, 3), (A, 30)],
    [(U, 40), (A, 4)],
    [(U, 2), (A, 3), (U, 2), (A, 3)],
    [(U, 2), (A, 3)] * 5,
]
SUMMARIES: list[Summary] = [
    _summary("mixed, cut", "The report's numbers over a set.", _MIXED, 10, "cut"),
    _summary("mixed, drop", "The same set dropped.", _MIXED, 10, "drop"),
    _summary("mixed, split_turns", "The same set split.", _MIXED, 10, "split_turns"),
    _summary(
        "all dropped",
        "Nothing is left to train on: ends with a sentence, not 0 steps.",
        [[(U, 40), (A, 4)], [(U, 3), (A, 30)]],
        10,
        "drop",
    ),
    _summary(
        "none long", "All counts are 0, and they are still reported.", [[(U, 3), (A, 4)]] * 3, 10, "cut"
    ),
    _summary("no conversations", "Empty: zeros.", [], 10, "split_turns"),
]

OPEN: list[str] = [
    "split_turns: several examples (here), or one shortened at a turn border (`prefix`)?",
    "split_turns: is the system turn repeated in each part? (here: yes)",
    "split_turns: an exchange too long by itself: left out (here), cut, or the whole conversation?",
    (
        "cut: is the cut turn given a turn end after all? By the request it 'ends without a turn end' - "
        "the checkpoint must still stop; here nothing is added and the cut turn is counted."
    ),
    "cut: an example with no answer token left: dropped and counted (here), or trained on as 0/0.",
    "drop: is the share dropped limited (all dropped = an error)?",
    "What the default of the three is.",
]


def check() -> None:
    for case in CASES:
        if isinstance(case["answer"], str):
            continue
        assert faults(case["turns"], case["max_length"], case["answer"], case["mode"]) == [], case["name"]
        counted = case["counted"]
        assert counted is not None
        total = sum(t for role, t in case["turns"] if role == A)
        assert counted["learnt_tokens"] + counted["lost_tokens"] == total, case["name"]
    assert len({case["name"] for case in CASES}) == len(CASES)
    by_name = {case["name"]: case for case in CASES}
    assert len(by_name["many small exchanges, split_turns"]["answer"]) == 10
    assert by_name["one over, cut"]["counted"] == {
        "long": 1,
        "dropped": 0,
        "turns_lost": 0,
        "turns_cut": 1,
        "learnt_tokens": 4,
        "lost_tokens": 1,
    }
    assert by_name["the middle one too long, split_turns"]["answer"] == [[(0, 2), (1, 3)], [(4, 2), (5, 3)]]


if __name__ == "__main__":
    check()
    print(len(CASES) + len(SUMMARIES), "cases")
