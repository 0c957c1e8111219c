"""Words of any script: where they begin and end, and how many a reader would count."""

import pytest

from aitp_tasks.texts import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bees don't fly at 5 °C.", ["Bees", "don", "t", "fly", "at", "5", "C"]),
        ("l’arbre_vert", ["l", "arbre", "vert"]),
        ("Größe, naïve", ["Größe", "naïve"]),
        ("蜜蜂fly", ["蜜", "蜂", "fly"]),
        ("春のハチ", ["春", "の", "ハ", "チ"]),
        ("사과 농가는", ["사과", "농가는"]),
        ("मधुमक्खियाँ उड़ती हैं", ["मधुमक्खियाँ", "उड़ती", "हैं"]),
        ("اَلنَّحْل", ["اَلنَّحْل"]),
        ("รังผึ้ง", ["รั", "ง", "ผึ้", "ง"]),
        ("❤️ 🐝 …", []),
        ("", []),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert words.split(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is photosynthesis?", 3),
        ("什么是光合作用?", 4),
        ("光合成とは何ですか。", 5),
        ("사과 농가는 왜 벌통을 빌립니까?", 8),
        ("ทำไมท้องฟ้าเป็นสีฟ้า", 5),
        ("什么是 BERT?", 3),
        ("", 0),
    ],
)
def test_count(text: str, expected: int) -> None:
    assert words.count(words.split(words.normal(text))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Ｗｈａｔ？", "What?"), ("e\u0301", "é"), ("ﬁne", "fine"), ("Plain", "Plain"), ("\ud800", "\ud800")],
)
def test_normal(text: str, expected: str) -> None:
    assert words.normal(text) == expected


def test_normal_keeps_the_first_marks_of_a_letter() -> None:
    assert len(words.normal("x" + "\u0316" * 1000)) == 31


@pytest.mark.parametrize(
    ("one", "other"),
    [("pollinators", "pollination"), ("농가는", "농가를"), ("урожай", "урожая"), ("bee", "bee")],
)
def test_inflections_share_a_stem(one: str, other: str) -> None:
    assert words.stem(one) == words.stem(other)
