"""Cases for near-duplicates of text: pairs of texts and on which side of 0.7 their similarity lies.

Written from the words of issue 19 and from public knowledge (MinHash over sets of words or shingles) alone,
by somebody who had not read the code.

Two definitions are assumed, and `similarity` holds both, computed from the texts and rounded to four places:

* `words`: Jaccard of the sets of words;
* `shingles`: Jaccard of the sets of runs of three words.

A word is a run of letters and digits after NFKC and case folding.  `near` is true where both are at least
0.7; a pair is here only if both definitions agree, so do shingles of two, four and five words, and none of
these lies within 0.08 of the threshold, so that the error of a MinHash sketch of 128 values or more should
not matter.  (LSH alone, without a check of the estimate, may name candidates below the threshold.)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Similarity:
    """Jaccard of the sets of words and of the sets of three-word shingles."""

    words: float
    shingles: float


@dataclass(frozen=True)
class NearText:
    """Two texts, whether they are near-duplicates at 0.7, and how alike they are."""

    name: str
    left: str
    right: str
    near: bool
    similarity: Similarity


FERRY = (
    "The night ferry to the outer islands leaves the northern quay at half past nine, calls at two small "
    "harbours where nobody lives in winter, and reaches the lighthouse shortly before dawn. Passengers who "
    "travel with bicycles should wait beside the crane until a sailor waves, because the ramp is steep and "
    "often wet. Tickets are sold on board; dogs ride free, cats pay like children, and parrots need "
    "written "
    "permission from the captain."
)
PEAT = (
    "Peat forms where moss dies faster than it can rot. In a raised bog the water is sour and holds "
    "hardly any "
    "oxygen, so stems, leaves and even trunks stay whole for thousands of years. A metre of it takes "
    "about a "
    "millennium to grow, which is why cutting it for fuel or for flower pots was never more than "
    "borrowing from "
    "a very slow bank."
)
BREAD = (
    "Mix the rye flour with warm water and the starter, cover the bowl with a damp cloth, and leave "
    "it near the "
    "stove overnight. In the morning add salt, caraway and the wheat flour, knead for ten minutes, "
    "and let the "
    "dough rise until it has doubled. Bake at high heat for a quarter of an hour, then lower the "
    "temperature "
    "and wait until the crust sounds hollow."
)
TIDES_QUESTION = (
    "Explain to a curious child of nine why the sea at the beach goes away twice each day and always "
    "comes back, "
    "using nothing but a bucket, a lamp and an apple."
)


CASES: list[NearText] = [
    # near
    NearText("equal", FERRY, FERRY, True, Similarity(1.0, 1.0)),
    NearText("equal_short_question", TIDES_QUESTION, TIDES_QUESTION, True, Similarity(1.0, 1.0)),
    NearText("upper_case", PEAT, PEAT.upper(), True, Similarity(1.0, 1.0)),
    NearText(
        "punctuation_taken_away",
        BREAD,
        BREAD.replace(",", "").replace(".", "").replace(";", ""),
        True,
        Similarity(1.0, 1.0),
    ),
    NearText("other_white_space", FERRY, FERRY.replace(" ", "\n  "), True, Similarity(1.0, 1.0)),
    NearText(
        "full_width_letters",
        PEAT,
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in PEAT),
        True,
        Similarity(1.0, 1.0),
    ),
    NearText(
        "one_word_exchanged", FERRY, FERRY.replace("lighthouse", "sanatorium"), True, Similarity(0.9697, 0.92)
    ),
    NearText(
        "two_words_exchanged_far_from_each_other",
        FERRY,
        FERRY.replace("night ferry", "slow ferry").replace("sailor", "steward"),
        True,
        Similarity(0.9403, 0.8701),
    ),
    NearText(
        "one_word_put_in",
        PEAT,
        PEAT.replace("stay whole", "stay nearly whole"),
        True,
        Similarity(0.9821, 0.9254),
    ),
    NearText(
        "one_word_taken_away", BREAD, BREAD.replace("a damp cloth", "a cloth"), True, Similarity(0.98, 0.9265)
    ),
    NearText(
        "one_number_exchanged",
        BREAD,
        BREAD.replace("ten minutes", "12 minutes"),
        True,
        Similarity(0.9608, 0.913),
    ),
    NearText(
        "a_short_greeting_before_it", FERRY, "Dear guests, welcome! " + FERRY, True, Similarity(0.9559, 0.96)
    ),
    NearText("a_closing_line_after_it", BREAD, BREAD + " Enjoy your loaf!", True, Similarity(0.9434, 0.9565)),
    NearText("last_words_cut_off", PEAT, PEAT.rsplit(" ", 4)[0], True, Similarity(0.9455, 0.9375)),
    NearText(
        "headings_and_bold_of_markdown",
        BREAD,
        "## " + BREAD.replace("rye flour", "**rye flour**").replace("In the morning", "\n\n*In the morning*"),
        True,
        Similarity(1.0, 1.0),
    ),
    NearText(
        "equal_in_cyrillic",
        "Старый маяк на северном берегу светит каждую ночь, хотя корабли давно ходят другим путём.",
        "старый маяк на северном берегу светит каждую ночь хотя корабли давно ходят другим путём",
        True,
        Similarity(1.0, 1.0),
    ),
    # not near
    NearText("other_topic", FERRY, PEAT, False, Similarity(0.0811, 0.0)),
    NearText("other_topic_same_form", PEAT, BREAD, False, Similarity(0.0825, 0.0)),
    NearText(
        "paraphrase",
        TIDES_QUESTION,
        "With only a pail, one light and a piece of fruit, how would you show a nine-year-old what "
        "makes ebb and "
        "flood happen every twelve hours or so?",
        False,
        Similarity(0.0784, 0.0),
    ),
    NearText(
        "translation",
        TIDES_QUESTION,
        "Erkläre einem neugierigen Kind von neun Jahren nur mit Eimer, Lampe und Apfel, warum das "
        "Meer am Strand "
        "zweimal täglich verschwindet und immer wiederkommt.",
        False,
        Similarity(0.0, 0.0),
    ),
    NearText(
        "same_opening_other_rest",
        "Explain to a curious child of nine why the sea at the beach goes away twice each day.",
        "Explain to a curious child of nine how bees find their hive again after a long flight over "
        "foreign fields.",
        False,
        Similarity(0.2414, 0.1724),
    ),
    NearText(
        "same_template_other_filling",
        "Write a short story about a lonely clockmaker in Prague who repairs the past for strangers "
        "at night.",
        "Write a short story about a cheerful beekeeper on Mars who sells honey to robots every morning.",
        False,
        Similarity(0.2222, 0.1481),
    ),
    NearText(
        "first_half_only",
        FERRY,
        FERRY[: FERRY.index("Passengers")].strip(),
        False,
        Similarity(0.4308, 0.4167),
    ),
    NearText(
        "one_text_within_a_text_twice_as_long", BREAD, FERRY + " " + BREAD, False, Similarity(0.4673, 0.4714)
    ),
    NearText(
        "same_first_half_other_second_half",
        FERRY[: FERRY.index("Passengers")] + PEAT[: PEAT.index("A metre")],
        FERRY[: FERRY.index("Passengers")] + BREAD[: BREAD.index("Bake")],
        False,
        Similarity(0.3765, 0.2679),
    ),
    NearText(
        "short_questions_few_words_alike",
        "Why is the sky blue?",
        "Why is grass green?",
        False,
        Similarity(0.2857, 0.0),
    ),
    NearText(
        "short_answers_that_differ_in_the_main_word",
        "The capital is Oslo.",
        "The river is long.",
        False,
        Similarity(0.3333, 0.0),
    ),
    NearText("text_against_one_word_of_it", FERRY, "ferry", False, Similarity(0.0154, 0.0)),
    NearText(
        "unrelated_chinese",
        "小明家的果园里种了三百二十棵苹果树和一百五十棵梨树。",
        "怎样才能让阳台上的薄荷长得更茂盛？",
        False,
        Similarity(0.0, 0.0),
    ),
]
