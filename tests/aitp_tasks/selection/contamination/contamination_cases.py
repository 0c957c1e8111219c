"""Cases for contamination by n-grams of words, and for detecting the layout of benchmark files.

Written from the words of issue 19 and from public knowledge (the practice of GPT-3, Llama 2 and 3, Tülu 3)
alone, by somebody who had not read the code.  No text here is from a real benchmark; all are invented.

`Contaminated`: `hit` says whether a pair and an evaluation set have at least one n-gram of normalised words
in common, n as given, whichever field (question or answer) it stands in on either side.  Normalised: NFKC,
case folded, punctuation and marks of Markdown without meaning, any white space one separator.  Scripts
written without spaces (Chinese, Japanese, Thai) count their characters, or the words of a segmenter: the
cases are such that both agree.  Similarity of embeddings is not meant: a paraphrase is no hit here.

`share_of_item`: of the evaluation item touched most, the share of its words (question and answer together)
that lie in an n-gram which the pair has too: the coverage by tokens of Llama 2 and Tülu 3.  None: not judged
(another normalisation could give another share, or a score for a near hit is as defensible as nought).

The expectations were checked with four plain normalisations (punctuation removed or split at, underscores a
letter or not, question and answer apart or joined); a case is here only if all of them agree.

Left out on purpose: a short item (fewer than n words) that a pair repeats whole, an n-gram across the border
of question and answer, an item of fewer than 2n + 1 words with one exchanged in its middle, several typing
errors nearer to each other than n, long common instructions.

`Layout`: which field of rows like these is the question, which the answer, and which benchmark they are of.
Paths are written with dots ("question.stem").  A tester takes a path that goes on into the field named
("turns.0", "turns[*]") as equal, and names of benchmarks without regard to case, `_`, `-` and space.
`answer` is ANY where more than one reading is fair (in multiple choice: the key, or the choices it points
to); None where the layout has no answer.  An unknown shape: None, None and the name "".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ANY = "*"


@dataclass(frozen=True)
class Contaminated:
    """An evaluation set, a pair, and whether they have an n-gram in common."""

    name: str
    n: int
    evaluation: list[dict[str, str]]
    pair: dict[str, str]
    hit: bool
    share_of_item: float | None


@dataclass(frozen=True)
class Layout:
    """Rows of an evaluation file and what a detector is to say of them."""

    name: str
    rows: list[dict[str, Any]]
    question: str | None
    answer: str | None
    benchmark: str


def _qa(question: str, answer: str = "") -> dict[str, str]:
    return {"question": question, "answer": answer}


# Items, in words: BAKERY 42, GREENHOUSE 35, HARBOUR 13, LOCK 26, TIDE_ANSWER 19.
BAKERY = (
    "A bakery in the old harbour sells ninety loaves on a weekday and twice as many on a Saturday, "
    "but a tenth "
    "of the Saturday loaves is given to the night shelter; how many loaves does the bakery sell in six days?"
)
GREENHOUSE = (
    "Which property of the glass in a greenhouse roof explains why the air beneath it stays warmer than the "
    "air outside even after the sun has gone behind the hills on a clear winter afternoon?"
)
HARBOUR = "Why must a pilot board every large ship before it enters our harbour?"
LOCK = (
    "When the upper gate of a canal lock leaks badly, which of the two chambers loses its water "
    "first and what "
    "must the keeper therefore do?"
)
TIDE_ANSWER = (
    "Because the moon pulls the near ocean harder than it pulls the earth, water heaps up on both sides"
)
UNRELATED = _qa(
    "How do I keep my sourdough starter alive during a long holiday?",
    "Feed it, let it rise for an hour, then put it into the fridge with a loose lid; it will last two weeks.",
)

CHINESE = (
    "小明家的果园里种了三百二十棵苹果树和一百五十棵梨树，去年冬天一场大雪压断了其中四十棵，"
    "春天他又补种了六十棵樱桃树，请问现在果园里一共有多少棵果树，苹果树占全部的几分之几？"
)
JAPANESE = (
    "港の近くにある古いパン屋では、平日には九十個、土曜日にはその二倍のパンを売りますが、"
    "土曜日の一割は夜の避難所に寄付されます。六日間で何個のパンを売ることになるでしょうか。"
)
THAI = (
    "ร้านขนมปังเก่าใกล้ท่าเรือขายขนมปังได้วันละเก้าสิบก้อนในวันธรรมดา"
    "และขายได้สองเท่าในวันเสาร์แต่ต้องบริจาคหนึ่งในสิบให้กับที่พักพิงยามค่ำคืน"
)

CODE = '''def running_median(values: list[float]) -> list[float]:
    """Return, for each prefix of values, the median of that prefix."""
    low: list[float] = []
    high: list[float] = []
    for value in values:
        heappush(low, -value)
        heappush(high, -heappop(low))
        if len(high) > len(low):
            heappush(low, -heappop(high))
'''


CONTAMINATED: list[Contaminated] = [
    # verbatim and nearly
    Contaminated("verbatim_question", 13, [_qa(BAKERY)], _qa(BAKERY, "It sells 612."), True, 1.0),
    Contaminated(
        "verbatim_question_and_answer",
        13,
        [_qa(GREENHOUSE, TIDE_ANSWER)],
        _qa(GREENHOUSE, TIDE_ANSWER),
        True,
        1.0,
    ),
    Contaminated("verbatim_at_n_8", 8, [_qa(GREENHOUSE)], _qa(GREENHOUSE, "Opacity."), True, 1.0),
    Contaminated("unrelated", 8, [_qa(BAKERY), _qa(GREENHOUSE), _qa(LOCK)], UNRELATED, False, 0.0),
    Contaminated("all_upper_case", 13, [_qa(BAKERY)], _qa(BAKERY.upper(), "612"), True, 1.0),
    Contaminated("title_case", 13, [_qa(GREENHOUSE.title())], _qa(GREENHOUSE.lower()), True, 1.0),
    Contaminated(
        "punctuation_gone",
        13,
        [_qa(BAKERY)],
        _qa(
            "A bakery in the old harbour sells ninety loaves on a weekday and twice as many on a "
            "Saturday but a "
            "tenth of the Saturday loaves is given to the night shelter how many loaves does the "
            "bakery sell in "
            "six days"
        ),
        True,
        1.0,
    ),
    Contaminated(
        "punctuation_everywhere",
        13,
        [_qa(HARBOUR)],
        _qa('Why - must a pilot (board) every, «large» ship... before it "enters" our harbour?!?'),
        True,
        1.0,
    ),
    Contaminated(
        "case_and_punctuation_at_once",
        10,
        [_qa(LOCK)],
        _qa(
            "WHEN THE UPPER GATE of a canal lock LEAKS BADLY: which of the two chambers loses its "
            "water first; "
            "and what must the keeper, therefore, do..."
        ),
        True,
        1.0,
    ),
    Contaminated(
        "curly_quotes_and_dashes_for_straight_ones",
        13,
        [
            _qa(
                'The captain said "we sail at dawn" - but why did nobody on the old pier believe a '
                "word of it?"
            )
        ],
        _qa("The captain said “we sail at dawn” — but why did nobody on the old pier believe a word of it?"),
        True,
        1.0,
    ),
    # embedded
    Contaminated(
        "embedded_in_a_longer_question",
        13,
        [_qa(BAKERY)],
        _qa(
            "I am preparing a quiz for my pupils and found this in a notebook. "
            + BAKERY
            + " Please explain each "
            "step so that a child of ten can follow it, and add a drawing.",
            "Let us go slowly.",
        ),
        True,
        1.0,
    ),
    Contaminated(
        "embedded_in_a_long_answer",
        13,
        [_qa(GREENHOUSE)],
        _qa(
            "Give me an exam question on physics for my class.",
            "Certainly, here is one that I like. "
            + GREENHOUSE
            + " Let them discuss it in pairs for a while.",
        ),
        True,
        1.0,
    ),
    Contaminated(
        "item_is_the_whole_answer",
        13,
        [_qa(LOCK, "The upper one.")],
        _qa("Write one hard question about canals.", LOCK),
        True,
        None,
    ),
    Contaminated(
        "answer_of_the_item_stands_in_the_question",
        13,
        [_qa("Why are there two tides a day?", TIDE_ANSWER)],
        _qa("Is this right? " + TIDE_ANSWER + ". My teacher doubts it.", "It is."),
        True,
        None,
    ),
    Contaminated(
        "answer_of_the_item_stands_in_the_answer",
        13,
        [_qa("Why are there two tides a day?", TIDE_ANSWER)],
        _qa("Explain spring tides to a sailor.", "In short: " + TIDE_ANSWER.lower() + ". Add the sun to it."),
        True,
        None,
    ),
    Contaminated(
        "short_question_but_long_answer_in_common",
        13,
        [_qa("Why tides?", TIDE_ANSWER)],
        _qa("What moves the sea?", TIDE_ANSWER),
        True,
        None,
    ),
    Contaminated(
        "pair_holds_only_a_part_of_the_item",
        13,
        [_qa(BAKERY)],
        _qa(
            "A bakery in the old harbour sells ninety loaves on a weekday and twice as many", "Twice ninety?"
        ),
        True,
        16 / 42,
    ),
    Contaminated(
        "pair_holds_only_the_end_of_the_item",
        8,
        [_qa(GREENHOUSE)],
        _qa("Cold came even after the sun has gone behind the hills on a clear winter afternoon, she wrote."),
        True,
        14 / 35,
    ),
    Contaminated(
        "pair_holds_two_parts_of_the_item",
        8,
        [_qa(BAKERY)],
        _qa(
            "Once a bakery in the old harbour sells ninety loaves it shuts its doors.",
            "Then I asked: how many loaves does the bakery sell in six days?",
        ),
        True,
        None,
    ),
    # words exchanged, added, taken away, numbers
    Contaminated(
        "one_word_exchanged_in_the_middle",
        13,
        [_qa(BAKERY)],
        _qa(BAKERY.replace("a Saturday,", "a Sunday,")),
        True,
        41 / 42,
    ),
    Contaminated(
        "one_word_exchanged_near_the_start",
        13,
        [_qa(GREENHOUSE)],
        _qa(GREENHOUSE.replace("the glass", "the pane")),
        True,
        30 / 35,
    ),
    Contaminated(
        "one_word_put_in",
        13,
        [_qa(BAKERY)],
        _qa(BAKERY.replace("twice as many on", "twice as many indeed on")),
        True,
        1.0,
    ),
    Contaminated(
        "one_word_taken_away",
        13,
        [_qa(BAKERY)],
        _qa(BAKERY.replace("on a Saturday,", "on Saturday,")),
        True,
        41 / 42,
    ),
    Contaminated(
        "another_number_in_the_middle",
        8,
        [
            _qa(
                "The town library lends books to every reader in the district and counted 48213 "
                "loans in the past "
                "year, so how many loans is that for each of its seven branches?"
            )
        ],
        _qa(
            "The town library lends books to every reader in the district and counted 51999 loans in "
            "the past "
            "year, so how many loans is that for each of its seven branches?"
        ),
        True,
        None,
    ),
    Contaminated(
        "number_with_points_for_one_with_commas",
        8,
        [
            _qa(
                "The town library lends books to every reader in the district and counted "
                "1,248,213.50 euros of "
                "fees in the past year, so how much is that for each of its seven branches?"
            )
        ],
        _qa(
            "The town library lends books to every reader in the district and counted 1.248.213,50 euros of "
            "fees in the past year, so how much is that for each of its seven branches?"
        ),
        True,
        None,
    ),
    Contaminated(
        "number_without_separators",
        8,
        [
            _qa(
                "The town library lends books to every reader in the district and counted 1,248,213 "
                "loans in the "
                "past year, so how much is that for each of its seven branches?"
            )
        ],
        _qa(
            "The town library lends books to every reader in the district and counted 1248213 loans in the "
            "past year, so how much is that for each of its seven branches?"
        ),
        True,
        None,
    ),
    Contaminated(
        "number_as_a_word",
        13,
        [_qa(BAKERY)],
        _qa(BAKERY.replace("six days", "6 days").replace("ninety", "90")),
        True,
        None,
    ),
    Contaminated(
        "only_numbers_are_alike",
        8,
        [_qa("Add 12, 48 and 90, then take 7 away.", "143")],
        _qa("My bus is the 12 or 48, at 90 cents.", "143"),
        False,
        None,
    ),
    # lengths around n
    Contaminated("exactly_13_words", 13, [_qa(HARBOUR)], _qa("Tell me: " + HARBOUR + " Thanks!"), True, 1.0),
    Contaminated(
        "exactly_8_words",
        8,
        [_qa("Who painted the green door of the lighthouse?")],
        _qa("In the novel, who painted the green door of the lighthouse and ran away?"),
        True,
        1.0,
    ),
    Contaminated(
        "twelve_words_in_common_at_n_13",
        13,
        [_qa(HARBOUR)],
        _qa("Say, why must a pilot board every large ship before it enters our lagoon nowadays?"),
        False,
        None,
    ),
    Contaminated(
        "seven_words_in_common_at_n_8",
        8,
        [_qa(GREENHOUSE)],
        _qa("Snow fell behind the hills on a clear winter morning.", "It melted by noon, people said."),
        False,
        None,
    ),
    Contaminated(
        "ten_words_in_common_at_n_8",
        8,
        [_qa(LOCK)],
        _qa("Call me when the upper gate of a canal lock leaks badly, my friend."),
        True,
        10 / 26,
    ),
    Contaminated(
        "ten_words_in_common_at_n_10",
        10,
        [_qa(LOCK)],
        _qa("Call me when the upper gate of a canal lock leaks badly, my friend."),
        True,
        10 / 26,
    ),
    Contaminated(
        "ten_words_in_common_at_n_11",
        11,
        [_qa(LOCK)],
        _qa("Call me when the upper gate of a canal lock leaks badly, my friend."),
        False,
        None,
    ),
    Contaminated(
        "ten_words_in_common_at_n_13",
        13,
        [_qa(LOCK)],
        _qa("Call me when the upper gate of a canal lock leaks badly, my friend."),
        False,
        None,
    ),
    Contaminated(
        "short_item_words_in_another_order",
        13,
        [_qa("Which river runs through Bremen?", "The Weser")],
        _qa("Is Bremen a town the Weser runs past, or which river runs there?", "Yes, through it."),
        False,
        None,
    ),
    Contaminated(
        "short_item_half_in_common",
        8,
        [_qa("Which river runs through the town of Bremen?", "Weser")],
        _qa("Which river runs through Vienna?", "The Danube, and a channel of it."),
        False,
        None,
    ),
    Contaminated(
        "short_and_long_item_of_one_set",
        13,
        [_qa("Why tides?", "The moon."), _qa(LOCK)],
        _qa("Here is a puzzle. " + LOCK),
        True,
        1.0,
    ),
    # words alike, order not
    Contaminated(
        "same_words_in_reverse_order",
        8,
        [_qa(GREENHOUSE)],
        _qa(" ".join(reversed(GREENHOUSE.rstrip("?").split()))),
        False,
        None,
    ),
    Contaminated(
        "same_words_in_alphabetical_order",
        8,
        [_qa(BAKERY)],
        _qa(" ".join(sorted(BAKERY.lower().replace(",", "").replace(";", "").replace("?", "").split()))),
        False,
        None,
    ),
    Contaminated(
        "paraphrase",
        8,
        [_qa(BAKERY)],
        _qa(
            "Ninety breads go over the counter of a harbour shop each working day. On Saturdays it "
            "is double, minus "
            "ten per cent for charity. What is the total from Monday to Saturday?"
        ),
        False,
        None,
    ),
    Contaminated(
        "translation",
        8,
        [_qa(HARBOUR)],
        _qa("Warum muss ein Lotse an Bord jedes großen Schiffes gehen, bevor es in unseren Hafen einläuft?"),
        False,
        None,
    ),
    Contaminated(
        "one_word_again_and_again",
        8,
        [_qa(BAKERY)],
        _qa("loaves " * 60, "Saturday " * 60),
        False,
        None,
    ),
    Contaminated(
        "five_words_of_the_item_again_and_again",
        8,
        [_qa(BAKERY)],
        _qa("sells ninety loaves on a " * 12),
        False,
        None,
    ),
    Contaminated(
        "item_with_a_refrain_verbatim",
        13,
        [
            _qa(
                "Row the boat, row the boat, row the boat home: how often does the song say row the "
                "boat in all?"
            )
        ],
        _qa(
            "Row the boat, row the boat, row the boat home: how often does the song say row the boat in all?"
        ),
        True,
        1.0,
    ),
    # common phrases
    Contaminated(
        "which_of_the_following_is_true",
        8,
        [_qa("Which of the following is true?", "Copper conducts heat.")],
        _qa("Which of the following is true?", "Whales are fish, or whales are mammals."),
        False,
        None,
    ),
    Contaminated(
        "common_opening_of_a_long_item",
        8,
        [
            _qa(
                "Which of the following statements is true about the gearbox of an old windmill in "
                "strong gusts?"
            )
        ],
        _qa("Which of the following statements is true for bees?", "They dance."),
        False,
        None,
    ),
    Contaminated(
        "several_common_phrases_none_of_n_words",
        8,
        [
            _qa(
                "Choose the best answer. Which of the following is true of lichens? Explain your "
                "reasoning step by step."
            )
        ],
        _qa(
            "Which of the following is true of cars? Please choose the best answer and explain your "
            "reasoning."
        ),
        False,
        None,
    ),
    Contaminated(
        "same_short_answer_true", 8, [_qa(HARBOUR, "True")], _qa("Is ice lighter?", "True"), False, None
    ),
    Contaminated(
        "same_short_answer_number",
        8,
        [_qa(BAKERY, "612")],
        _qa("What is six hundred and twelve?", "612"),
        False,
        None,
    ),
    # empty
    Contaminated("no_evaluation_items", 13, [], _qa(BAKERY, "612"), False, None),
    Contaminated("item_with_two_empty_fields", 13, [_qa("", "")], _qa(BAKERY, "612"), False, None),
    Contaminated("pair_with_two_empty_fields", 13, [_qa(BAKERY, "612")], _qa("", ""), False, 0.0),
    Contaminated("everything_empty", 8, [_qa("", "")], _qa("", ""), False, None),
    Contaminated(
        "punctuation_only_on_both_sides",
        8,
        [_qa("? ! . , ; : - ? ! .")],
        _qa("? ! . , ; : - ? ! ."),
        False,
        None,
    ),
    Contaminated("empty_answers", 13, [_qa(LOCK, "")], _qa(LOCK, ""), True, 1.0),
    Contaminated(
        "empty_question_of_the_item", 13, [_qa("", TIDE_ANSWER)], _qa("Tides?", TIDE_ANSWER), True, 1.0
    ),
    # several items
    Contaminated(
        "second_of_three_items", 13, [_qa(BAKERY), _qa(LOCK), _qa(GREENHOUSE)], _qa("Hm. " + LOCK), True, 1.0
    ),
    Contaminated(
        "words_across_the_border_of_two_items",
        8,
        [_qa("Where does the old ferry land at night?"), _qa("When do the gulls of the island sleep?")],
        _qa("Nobody saw the old ferry land at night when do the gulls of the island cry."),
        False,
        None,
    ),
    # white space, Unicode, mark-up
    Contaminated(
        "tabs_and_line_ends_for_spaces", 13, [_qa(BAKERY)], _qa(BAKERY.replace(" ", "\n\t")), True, 1.0
    ),
    Contaminated(
        "windows_line_ends_and_wrapped_lines",
        13,
        [_qa(GREENHOUSE.replace(" the ", " the\r\n"))],
        _qa(GREENHOUSE.replace(" a ", "  a \n")),
        True,
        1.0,
    ),
    Contaminated("no_break_spaces", 13, [_qa(LOCK)], _qa(LOCK.replace(" ", "\u00a0")), True, 1.0),
    Contaminated(
        "full_width_letters",
        13,
        [_qa(HARBOUR)],
        _qa("".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in HARBOUR)),
        True,
        1.0,
    ),
    Contaminated(
        "ligatures",
        8,
        [_qa("The official first found five fine fish in the office, then finally filled a file")],
        _qa("The oﬃcial ﬁrst found ﬁve ﬁne ﬁsh in the oﬃce, then ﬁnally ﬁlled a ﬁle"),
        True,
        1.0,
    ),
    Contaminated(
        "accents_composed_and_decomposed",
        8,
        [
            _qa(
                "Où l'été dernier a-t-elle caché la clé dorée près du vieux château où Zoé dînait "
                "avec René à Orléans ?"
            )
        ],
        _qa(
            "Ou\u0300 l'e\u0301te\u0301 dernier a-t-elle cache\u0301 la cle\u0301 dore\u0301e "
            "pre\u0300s du vieux "
            "cha\u0302teau ou\u0300 Zoe\u0301 di\u0302nait avec Rene\u0301 a\u0300 Orle\u0301ans ?"
        ),
        True,
        1.0,
    ),
    Contaminated(
        "cyrillic_in_another_case",
        8,
        [_qa("Почему старый маяк на северном берегу каждую осень светит дольше, чем новый маяк в гавани?")],
        _qa("ПОЧЕМУ СТАРЫЙ МАЯК НА СЕВЕРНОМ БЕРЕГУ КАЖДУЮ ОСЕНЬ СВЕТИТ ДОЛЬШЕ ЧЕМ НОВЫЙ МАЯК В ГАВАНИ"),
        True,
        1.0,
    ),
    Contaminated(
        "markdown_around_the_words",
        13,
        [_qa(BAKERY)],
        _qa(
            "## Exercise\n\n> **" + BAKERY.replace(" Saturday,", " Saturday**,") + "\n\n- *Hint*: add first."
        ),
        True,
        1.0,
    ),
    Contaminated(
        "words_in_bold_here_and_there",
        13,
        [_qa(LOCK)],
        _qa(LOCK.replace("upper", "**upper**").replace("keeper", "**keeper**").replace("first", "*first*")),
        True,
        1.0,
    ),
    Contaminated(
        "code_in_a_fence_with_tabs",
        13,
        [_qa(CODE)],
        _qa(
            "Complete this.\n\n```python\n" + CODE.replace("    ", "\t") + "```\n", "```python\nreturn 1\n```"
        ),
        True,
        1.0,
    ),
    Contaminated(
        "code_in_the_answer",
        10,
        [_qa("Write a running median.", CODE)],
        _qa("How would one keep a median of a stream?", "Like this:\n```\n" + CODE + "```"),
        True,
        None,
    ),
    Contaminated(
        "other_code_with_the_same_keywords",
        8,
        [_qa(CODE)],
        _qa(
            "Sum the squares.",
            "def total(xs):\n    s = 0\n    for x in xs:\n        if x > 0:\n            s += x * "
            "x\n    return s",
        ),
        False,
        None,
    ),
    Contaminated(
        "html_entity_left_in_the_item",
        8,
        [
            _qa(
                "Why do fish &amp; chips taste better by the sea than anywhere else in the whole "
                "wide country, he asked?"
            )
        ],
        _qa(
            "Why do fish & chips taste better by the sea than anywhere else in the whole wide "
            "country, he asked?"
        ),
        True,
        None,
    ),
    Contaminated(
        "html_entities_on_both_sides",
        8,
        [_qa("If a &lt; b and b &lt; c in the tower of stones, which stone must be the lowest one of all?")],
        _qa("If a &lt; b and b &lt; c in the tower of stones, which stone must be the lowest one of all?"),
        True,
        1.0,
    ),
    # scripts without spaces
    Contaminated(
        "chinese_verbatim", 13, [_qa(CHINESE)], _qa("请解答下面的题目。" + CHINESE + "谢谢！"), True, 1.0
    ),
    Contaminated(
        "chinese_with_ascii_punctuation",
        8,
        [_qa(CHINESE)],
        _qa(CHINESE.replace("，", ", ").replace("？", "?")),
        True,
        1.0,
    ),
    Contaminated(
        "chinese_one_character_exchanged_in_the_middle",
        8,
        [_qa(CHINESE)],
        _qa(CHINESE.replace("春天", "夏天")),
        True,
        None,
    ),
    Contaminated(
        "chinese_unrelated",
        8,
        [_qa(CHINESE)],
        _qa("怎样才能让阳台上的薄荷长得更茂盛？", "多晒太阳，少浇水，每两周施一次薄肥，并且经常摘心。"),
        False,
        0.0,
    ),
    Contaminated(
        "chinese_common_phrase",
        13,
        [_qa("下列说法正确的是哪一项？", "铜能导热")],
        _qa("关于鲸鱼，下列说法正确的是什么？", "鲸鱼是哺乳动物"),
        False,
        None,
    ),
    Contaminated(
        "japanese_verbatim_in_the_answer",
        13,
        [_qa(JAPANESE)],
        _qa("算数の問題を一つ作ってください。", "はい、どうぞ。" + JAPANESE),
        True,
        1.0,
    ),
    Contaminated(
        "japanese_unrelated",
        8,
        [_qa(JAPANESE)],
        _qa("猫が夜に鳴く理由は？", "お腹が空いたり、遊びたかったりするためです。"),
        False,
        None,
    ),
    Contaminated("thai_verbatim", 13, [_qa(THAI)], _qa("ช่วยอธิบายโจทย์นี้ " + THAI + " ขอบคุณ"), True, 1.0),
    Contaminated(
        "korean_verbatim",
        8,
        [
            _qa(
                "항구 근처의 오래된 빵집은 평일에 빵을 아흔 개 팔고 토요일에는 두 배를 파는데 모두 "
                "몇 개를 팔까요?"
            )
        ],
        _qa(
            "질문: 항구 근처의 오래된 빵집은 평일에 빵을 아흔 개 팔고 토요일에는 두 배를 파는데 모두 "
            "몇 개를 팔까요?"
        ),
        True,
        1.0,
    ),
]


LAYOUTS: list[Layout] = [
    Layout(
        "gsm8k",
        [
            {
                "question": "Ada has 3 pens and buys 4. How many?",
                "answer": "She has 3+4=<<3+4=7>>7 pens.\n#### 7",
            },
            {"question": "Ben halves 18 plums. How many each?", "answer": "18/2=<<18/2=9>>9.\n#### 9"},
        ],
        "question",
        "answer",
        "gsm8k",
    ),
    Layout(
        "mmlu_of_the_hub",
        [
            {
                "question": "The heaviest gas is",
                "subject": "physics",
                "choices": ["neon", "radon", "air", "none"],
                "answer": 1,
            },
            {
                "question": "A sonnet has",
                "subject": "poetry",
                "choices": ["9 lines", "12", "14", "20"],
                "answer": 2,
            },
        ],
        "question",
        ANY,
        "mmlu",
    ),
    Layout(
        "arc_of_the_hub",
        [
            {
                "id": "Case_1",
                "question": "Which tool measures wind?",
                "choices": {"text": ["ruler", "vane", "anemometer", "sieve"], "label": ["A", "B", "C", "D"]},
                "answerKey": "C",
            },
            {
                "id": "Case_2",
                "question": "What do roots take up?",
                "choices": {"text": ["light", "water", "sound", "wind"], "label": ["1", "2", "3", "4"]},
                "answerKey": "2",
            },
        ],
        "question",
        ANY,
        "arc",
    ),
    Layout(
        "arc_as_released_with_nested_stem",
        [
            {
                "id": "Case_3",
                "question": {
                    "stem": "Which of these melts first?",
                    "choices": [
                        {"text": "iron", "label": "A"},
                        {"text": "wax", "label": "B"},
                        {"text": "slate", "label": "C"},
                    ],
                },
                "answerKey": "B",
            },
            {
                "id": "Case_4",
                "question": {
                    "stem": "What carries sound best?",
                    "choices": [{"text": "void", "label": "A"}, {"text": "steel", "label": "B"}],
                },
                "answerKey": "B",
            },
        ],
        "question.stem",
        ANY,
        "arc",
    ),
    Layout(
        "hellaswag",
        [
            {
                "ind": 4,
                "activity_label": "Waxing a boat",
                "ctx_a": "A man kneels beside a boat.",
                "ctx_b": "he",
                "ctx": "A man kneels beside a boat. he",
                "endings": ["rubs wax on it.", "eats the wax.", "sails away at once.", "sings to the wax."],
                "source_id": "invented~1",
                "split": "val",
                "split_type": "indomain",
                "label": "0",
            },
            {
                "ind": 5,
                "activity_label": "Baking",
                "ctx_a": "A girl opens the oven.",
                "ctx_b": "she",
                "ctx": "A girl opens the oven. she",
                "endings": ["swims.", "takes out a loaf.", "plants it.", "paints the loaf blue."],
                "source_id": "invented~2",
                "split": "val",
                "split_type": "zeroshot",
                "label": "1",
            },
        ],
        "ctx",
        ANY,
        "hellaswag",
    ),
    Layout(
        "humaneval",
        [
            {
                "task_id": "HumanEval/900",
                "prompt": 'def double(x: int) -> int:\n    """Return twice x."""\n',
                "canonical_solution": "    return 2 * x\n",
                "test": "def check(candidate):\n    assert candidate(2) == 4\n",
                "entry_point": "double",
            },
            {
                "task_id": "HumanEval/901",
                "prompt": 'def last(xs: list) -> object:\n    """Return the last of xs."""\n',
                "canonical_solution": "    return xs[-1]\n",
                "test": "def check(candidate):\n    assert candidate([1, 2]) == 2\n",
                "entry_point": "last",
            },
        ],
        "prompt",
        "canonical_solution",
        "humaneval",
    ),
    Layout(
        "mbpp_full",
        [
            {
                "task_id": 9001,
                "text": "Write a function that doubles a number.",
                "code": "def double(x):\n    return 2 * x",
                "test_list": ["assert double(2) == 4"],
                "test_setup_code": "",
                "challenge_test_list": [],
            },
            {
                "task_id": 9002,
                "text": "Write a function that finds the last of a list.",
                "code": "def last(xs):\n    return xs[-1]",
                "test_list": ["assert last([1, 2]) == 2"],
                "test_setup_code": "",
                "challenge_test_list": [],
            },
        ],
        "text",
        "code",
        "mbpp",
    ),
    Layout(
        "mbpp_sanitized",
        [
            {
                "source_file": "Invented.ipynb",
                "task_id": 9003,
                "prompt": "Write a function that triples a number.",
                "code": "def triple(x):\n    return 3 * x",
                "test_imports": [],
                "test_list": ["assert triple(2) == 6"],
            },
            {
                "source_file": "Invented.ipynb",
                "task_id": 9004,
                "prompt": "Write a function that counts the vowels of a word.",
                "code": "def vowels(w):\n    return sum(c in 'aeiou' for c in w)",
                "test_imports": [],
                "test_list": ["assert vowels('tea') == 2"],
            },
        ],
        "prompt",
        "code",
        "mbpp",
    ),
    Layout(
        "truthfulqa_generation",
        [
            {
                "type": "Adversarial",
                "category": "Sea lore",
                "question": "What happens to a ship that leaves port on a Friday?",
                "best_answer": "Nothing in particular.",
                "correct_answers": ["Nothing in particular.", "It sails."],
                "incorrect_answers": ["It sinks."],
                "source": "invented",
            },
            {
                "type": "Non-Adversarial",
                "category": "Sea lore",
                "question": "Do gulls foretell storms?",
                "best_answer": "No.",
                "correct_answers": ["No."],
                "incorrect_answers": ["Always."],
                "source": "invented",
            },
        ],
        "question",
        "best_answer",
        "truthfulqa",
    ),
    Layout(
        "truthfulqa_as_the_released_csv",
        [
            {
                "Type": "Adversarial",
                "Category": "Weather",
                "Question": "Does it always rain after a red morning sky?",
                "Best Answer": "No, not always",
                "Correct Answers": "No, not always; No",
                "Incorrect Answers": "Yes; Yes, within a day",
                "Source": "invented",
            }
        ],
        "Question",
        "Best Answer",
        "truthfulqa",
    ),
    Layout(
        "truthfulqa_multiple_choice",
        [
            {
                "question": "Can one see stars from the bottom of a well by day?",
                "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
                "mc2_targets": {"choices": ["No", "Hardly", "Yes"], "labels": [1, 1, 0]},
            }
        ],
        "question",
        ANY,
        "truthfulqa",
    ),
    Layout(
        "bbh",
        [
            {"input": "not ( True ) and ( True ) is", "target": "False"},
            {"input": "Sort the following words: quay anchor boat", "target": "anchor boat quay"},
        ],
        "input",
        "target",
        "bbh",
    ),
    Layout(
        "ifeval",
        [
            {
                "key": 9001,
                "prompt": "Write about ferries in at least 40 words. Do not use any commas.",
                "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
                "kwargs": [{}, {"relation": "at least", "num_words": 40}],
            },
            {
                "key": 9002,
                "prompt": "Answer in lowercase letters only: what is peat?",
                "instruction_id_list": ["change_case:english_lowercase"],
                "kwargs": [{}],
            },
        ],
        "prompt",
        None,
        "ifeval",
    ),
    Layout(
        "mt_bench_without_references",
        [
            {
                "question_id": 981,
                "category": "writing",
                "turns": ["Write a letter to a lighthouse keeper.", "Now make it rhyme."],
            },
            {"question_id": 982, "category": "roleplay", "turns": ["Be a gull.", "Be a hungry gull."]},
        ],
        "turns",
        None,
        "mt_bench",
    ),
    Layout(
        "mt_bench_with_references",
        [
            {
                "question_id": 991,
                "category": "math",
                "turns": ["What is 17 times 3?", "Add 9 to it."],
                "reference": ["51", "60"],
            },
            {
                "question_id": 992,
                "category": "reasoning",
                "turns": ["Tom is older than Ann. Who is younger?", "Why?"],
                "reference": ["Ann", "It was said."],
            },
        ],
        "turns",
        ANY,
        "mt_bench",
    ),
    Layout(
        "alpaca_eval",
        [
            {
                "instruction": "Name three knots that every sailor knows.",
                "output": "Bowline, reef knot, clove hitch.",
                "generator": "text_davinci_003",
                "dataset": "helpful_base",
            },
            {
                "instruction": "How do I dry herbs?",
                "output": "Hang them in the shade.",
                "generator": "text_davinci_003",
                "dataset": "koala",
            },
        ],
        "instruction",
        "output",
        "alpaca_eval",
    ),
    Layout(
        "winogrande",
        [
            {
                "sentence": "The rope did not fit through the ring because the _ was too thick.",
                "option1": "rope",
                "option2": "ring",
                "answer": "1",
            },
            {
                "sentence": "Ida thanked Eva because _ had mended the net.",
                "option1": "Ida",
                "option2": "Eva",
                "answer": "2",
            },
        ],
        "sentence",
        ANY,
        "winogrande",
    ),
    Layout(
        "piqa",
        [
            {
                "goal": "Keep a boat from drifting.",
                "sol1": "Drop the anchor.",
                "sol2": "Drop the sail bag.",
                "label": 0,
            },
            {
                "goal": "Dry wet boots.",
                "sol1": "Fill them with water.",
                "sol2": "Fill them with paper.",
                "label": 1,
            },
        ],
        "goal",
        ANY,
        "piqa",
    ),
    Layout("unknown_no_rows", [], None, None, ""),
    Layout("unknown_rows_without_fields", [{}, {}], None, None, ""),
    Layout("unknown_numbers_only", [{"a": 1, "b": 2.5}, {"a": 3, "b": 4.5}], None, None, ""),
    Layout("unknown_ids_only", [{"id": "x1"}, {"id": "x2"}], None, None, ""),
    Layout(
        "unknown_vectors",
        [{"id": "v1", "vector": [0.1, 0.2]}, {"id": "v2", "vector": [0.3, 0.4]}],
        None,
        None,
        "",
    ),
    Layout(
        "unknown_names_of_fields",
        [{"kolonne_7": "Hvor dyp er havnen?", "kolonne_8": "Elleve meter."}],
        None,
        None,
        "",
    ),
]


CASES: list[Contaminated | Layout] = [*CONTAMINATED, *LAYOUTS]
