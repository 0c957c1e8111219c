"""What may stand behind an object: nothing, or words that say nothing of it."""

import re

#: Characters of a courtesy at most.
_LONGEST = 300
_TURN_END = re.compile(
    r"</s>|<(?:eos|end_of_turn)>"
    r"|<[|｜](?:im_end|eot_id|end|return|call|endoftext|end_of_text|end▁of▁sentence|END_OF_TURN_TOKEN)[|｜]>"
)
#: Fences, tags and special tokens.
_MARKUP = re.compile(r"```\w*+|</?\w{1,30}>|<\|\w{1,40}\|>")
_BRACKETS = " \t\r\n`*_#[](){}<>,;:—–-"
_SENTENCE_END = re.compile(r"[.!?;:…。！？；：\n]++")
#: A courtesy that has these says more.
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


def are_all(text: str) -> bool:
    """Whether the text is nothing but courtesies; what follows the end of the turn does not count."""
    text = _MARKUP.sub(" ", _TURN_END.split(text, maxsplit=1)[0]).strip(_BRACKETS)
    if len(text) > _LONGEST or _CONTRAST.search(text):
        return False
    sentences = [sentence.strip(_BRACKETS) for sentence in _SENTENCE_END.split(text)]
    return all(_COURTESY.fullmatch(sentence) for sentence in sentences if sentence)
