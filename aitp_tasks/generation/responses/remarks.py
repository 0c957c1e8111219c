"""What the text around an object, or an object itself, says of it: an example, a draft, final, taken back."""

import re

from aitp_tasks.generation.responses.keys import squash

#: Characters before or behind an object that say what it is.
NEAR = 300

_WORDS = re.compile(r"\w+")
_PROVISIONAL = re.compile(
    r"\b(?:for example|for instance|e\.g\.|such as|example\s*+:?+\Z|preliminary"
    r"|example (?:of|for|format|output|response|json|answer)\b|draft|first (?:attempt|try|version)"
    r"|z\. ?B\.|Beispiel|Entwurf|exemple|brouillon|ejemplo|borrador|esempio|bozza|exemplo|rascunho"
    r"|voorbeeld|например|пример|черновик)"
    r"|例えば|例如|示例|草稿|下書き"
    # "I will answer in this format:", "it should look like this:".
    r"|(?:\b(?:will|would|can|could|shall|should|must|going to|needs? to|has to|have to)|['’]ll)\b"
    r"[^.\n]{0,60}(?:\b(?:this|these|that|such an?|the (?:following|same|given))(?: \w+){0,2}? "
    r"(?:formats?|forms?|structures?|schemas?|templates?|shapes?|layouts?|style)\b"
    r"|\b(?:like this|like so|as follows|as (?:shown )?below)\b)"
    r"|\b(?:format|form|template|structure|schema)\b[^.\n]{0,20}\b(?:is|would be|will be|looks like)\b"
    r"[^.\n]{0,30}:?\s*\Z"
    r"|\b(?:werde|würde|soll|sollte|muss)\b[^.\n]{0,40}\b(?:Format|Form)\b"
    r"|\b(?:in|im) (?:diese[mr]|folgende[mnr]) (?:Format|Form)\b"
    r"|\b(?:[cs]e|este|esse|questo|seguente|siguiente|suivant) (?:format|formato)\b|\bce format\b"
    r"|\b(?:dit|volgende?) formaat\b|\bв (?:этом|следующем|таком) (?:формате|виде)\b"
    r"|将(?:会)?[以按用][^。\n]{0,20}格式|(?:この|次の|以下の)(?:形式|フォーマット)で",
    re.IGNORECASE,
)
#: The task's input is asked for: what is shown is no answer.
_REQUEST = re.compile(
    r"\b(?:please|kindly|can you|could you|you need to)\b[^.?!\n]{0,20}"
    r"\b(?:provide|send|give me|share|paste|enter|supply|upload|attach)\b"
    r"(?:(?!\b(?:more|another|next|additional|further|other|feedback)\b)[^.?!\n]){0,30}"
    r"\b(?:question|document|text|passage|article|background|input|content)\b"
    r"|\b(?:once|when|as soon as) you(?:['’]ve| have)? (?:provided?|sen[dt]|shared?|pasted?|supply)\b",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"\b(?:final(?:ly|e|es|er|en)?|revised|corrected|correction|let me (?:correct|revise|redo|fix)"
    r"|endgültig\w*|überarbeitet\w*|korrigiert\w*|Korrektur|définiti\w+|corrigée?s?|definitiv\w+|corregid\w+"
    r"|corrett\w+|окончательн\w+|исправленн\w+)\b|最终|最終|修正",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|no|isn't|never|before|nicht|kein\w*|pas|не)\b", re.IGNORECASE)
_RETRACTION = re.compile(
    r"\bwait\s*+(?:[,.!…—–-]|\Z)|\b(?:actually|edit:|on reflection|hmm|oops|sorry|no,"
    r"|correction|scratch that|on second thoughts?|made a mistake|is a mistake"
    r"|should (?:have been|rather be|instead be|actually be)"
    r"|(?:score|mark|rating|value|quality|difficulty)\b[^.\n]{0,20}\bshould be"
    r"|(?:disregard|ignore) (?:the|that|this|my)|let me (?:correct|revise|redo|fix|reconsider|try again)"
    r"|Korrektur|corrección|correzione|исправление)\b|更正",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
#: Keys of what a model notes for itself, or repeats, which is no part of what it is asked for.
_NOTES = frozenset(
    _WORDS.findall("""
    think thinking thought thoughts reasoning reasoningcontent reason reasons rationale chainofthought cot
    scratchpad plan notes note comment comments why language lang locale topic topics subject category tags
    keywords sources source references reference citations confidence certainty count length wordcount tokens
    version timestamp date id index document documents question questions answer answers
    difficulty level kind overall total average
    """)
)
#: Keys of what explains a mark; beside a text they may go on with it.
_GROUNDS = _NOTES | frozenset(
    _WORDS.findall("""
    analysis explanation explanations justification evaluation feedback summary strengths weaknesses remarks
    reflection description
    """)
)
#: Members that say that all is well.
_FINE = {
    "truncated": (False,),
    "complete": (True,),
    "success": (True,),
    "status": ("ok", "success", "complete"),
    "finishreason": ("stop",),
}
#: What is in a member with such a key is no answer.
_OTHER_CONTENT = re.compile(
    r"example|sample|draft|schema|format|template|default|\binput|request|prompt|instruction|document"
    r"|think|thought|reasoning|analysis|scratch|beispiel|entwurf|exempl|ejemplo|esempio|voorbeeld|пример|示例",
    re.IGNORECASE,
)

_NOUNS = (
    r"(?:answer|question|text|response|string|content|solution|explanation"
    r"|Antwort|Frage|réponse|respuesta|pregunta|risposta|domanda|resposta|pergunta|antwoord|vraag|ответ|вопрос)"
)
_PHRASE = re.compile(
    r"(?:(?:please )?(?:insert|write|put|type|enter|provide|add|place|give) )?"
    r"(?:(?:the|your|my|an?|another|some|one|two|first|second|third|next|final|full|complete|detailed|short|actual"
    r"|step-by-step|generated|1st|2nd|Ihre|deine|die|votre|la|tu|su|tua|sua|a|sua|uw|je|ваш|erste|zweite|première"
    r"|deuxième|primera|segunda|prima|seconda|eerste|tweede|первый|второй) ){0,4}"
    rf"{_NOUNS}s?(?: (?:text|string|content))?(?:[ _]?(?:no\.?|number|nummer|número|numéro|numero|#))?"
    r"(?:[ _]?(?:\d{1,2}|one|two|three|[a-c]))?"
    r"(?: (?:goes|comes|in full|hier|ici|aquí|qui|aqui))?(?: here)?\s?[.:?…]{0,4}"
    r"|(?:问题|問題|質問|答案|回答|答え)\s?\d{0,2}[。？：…]{0,3}"
    r"|(?:what|why|how|when|where|which|who)(?: \w+){0,2} ?(?:\.{3}|…) ?\??",
    re.IGNORECASE,
)
_DOTS = re.compile(r"(?=[\s.。…]*?(?:\.\s?\.\s?\.|…|。。。))[\s.。…]++|_{3,}")
_BRACKETED = re.compile(r"<[^<>\"=]{1,120}>|\[[^\[\]\"]{1,120}\]|\{+[^{}\":]{1,120}\}+|\([^()\"]{1,120}\)")
_INSTRUCTION = re.compile(
    rf"\b(?:{_NOUNS}s?|your|insert|here|placeholder|fill|todo|tbd)(?:\b|(?=[_\d]))|[问質]题|問題|答案|回答|質問",
    re.I,
)

_TURN_END = re.compile(
    r"</s>|<(?:eos|end_of_turn)>"
    r"|<[|｜](?:im_end|eot_id|end|return|call|endoftext|end_of_text|end▁of▁sentence|END_OF_TURN_TOKEN)[|｜]>"
)
#: Fences, tags and special tokens.
_MARKUP = re.compile(r"```\w*+|</?\w{1,30}>|<\|\w{1,40}\|>")
_BRACKETS = " \t\r\n`*_#[](){}<>,;:—–-"
_ENDS = re.compile(r"[.!?;:…。！？；：\n]++")
#: What sounds like a courtesy and has these says more.
_CONTRAST = re.compile(
    r"\d|\b(?:but|though|although|however|actually|instead|rather|better|except|not|wrong|false|correct\w*"
    r"|incorrect|mistake\w*|errors?|replace|fix|real|lower|higher|answer (?:is|should)"
    r"|aber|pero|mais|però|mas|maar|но)\b|[但错誤误]|不过|不過|然而|ただし|違",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"(?:i (?:really |do )?)?hope (?:this|that|it|these|those|they|you)\b[^,]{0,80}"
    r"|(?:please |just )?(?:let me know|feel free|don['’]t hesitate|do not hesitate)\b.{0,100}"
    r"|if you (?:have|need|want|would like|['’]d like)\b.{0,60},.{0,60}|ask if \w+ is unclear"
    r"|(?:i['’](?:m|d be) |i am |i would be )?(?:always )?(?:happy|glad|here) to (?:help|assist)\b.{0,40}"
    r"|(?:is there|do you (?:need|want|have))\b.{0,60}"
    r"|(?:many )?thank(?:s| you)(?: for \w+ \w+| (?:so|very) much)?|you['’]re welcome"
    r"|please send the next \w+\b.{0,40}|as (?:required|requested|asked)|good luck\b.{0,40}|enjoy|done"
    r"|that concludes\b.{0,30}|that['’]?s (?:it|all)|have a (?:great|nice|good) day|best(?: regards)?"
    r"|end of (?:the )?(?:response|answer|json|output)"
    r"|(?:ich )?hoffe,?(?: das| dies| es| sie| ich)?\b.{0,60}|viel erfolg"
    r"|lass(?:en sie)? mich wissen\b.{0,60}|(?:wenn|falls) sie\b.{0,60}fragen\b.{0,60}"
    r"|espero que\b.{0,60}|no dudes? en\b.{0,60}|si (?:necesitas?|tienes?|quieres?)\b.{0,80}"
    r"|j['’]espère que\b.{0,60}|n['’]hésitez pas\b.{0,60}"
    r"|spero (?:che|sia|ti|vi)\b.{0,60}|fammi sapere\b.{0,60}"
    r"|(?:fique à vontade|se precisar|me avise)\b.{0,60}|ik hoop dat\b.{0,60}|laat (?:het )?me weten\b.{0,60}"
    r"|надеюсь,?\b.{0,60}|希望.{0,30}|如[有果].{0,40}|请?随时.{0,20}|以上"
    r"|(?:お役に立て|ご?参考に|ご不明|他に).{0,40}",
    re.IGNORECASE,
)


def is_provisional(label: str) -> bool:
    """Whether the text before an object calls it an example, a draft, or the format of an answer to come."""
    return bool(_PROVISIONAL.search(label))


def says_final(label: str) -> bool:
    """Whether the text before an object says that it is the one that counts."""
    sentences = [sentence for sentence in _SENTENCE_END.split(label) if _FINAL.search(sentence)]
    return bool(sentences) and not any(map(_NEGATION.search, sentences))


def takes_back(text: str) -> bool:
    """Whether the text behind an object takes it back."""
    return bool(_RETRACTION.search(text[:NEAR]))


def are_courtesies(text: str) -> bool:
    """Whether text behind an object says nothing of it; what follows the end of the turn does not count."""
    text = _MARKUP.sub(" ", _TURN_END.split(text, maxsplit=1)[0]).strip(_BRACKETS)
    if len(text) > NEAR or _CONTRAST.search(text):
        return False
    sentences = [sentence.strip(_BRACKETS) for sentence in _ENDS.split(text)]
    return all(_COURTESY.fullmatch(sentence) for sentence in sentences if sentence)


def asks_for_input(text: str) -> bool:
    """Whether the text around an object asks for what the prompt has given."""
    return bool(_REQUEST.search(text[:NEAR]) or _REQUEST.search(text[-NEAR:]))


def is_note(key: str, value: object, beside_text: bool = False) -> bool:
    """Whether a member changes nothing of what is asked for: a note, or a word that all is well."""
    key = squash(key)
    return key in (_NOTES if beside_text else _GROUNDS) or value in _FINE.get(key, ())


def holds_no_answer(key: str) -> bool:
    """Whether what stands under a key is an example, a schema, or the like."""
    return bool(_OTHER_CONTENT.search(key))


def is_placeholder(text: str) -> bool:
    """Whether a string is wholly an instruction to fill it: ``...``, ``<your answer>``, ``Question 1``."""
    text = text.strip(" \t\n*`")
    if len(text) > 2 * NEAR:
        return False
    if _BRACKETED.fullmatch(text):
        return bool(_INSTRUCTION.search(text) or _DOTS.fullmatch(text[1:-1]))
    return bool(_DOTS.fullmatch(text) or _PHRASE.fullmatch(text))
