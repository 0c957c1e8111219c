"""What stands behind an object takes it back, goes on with it, or is a courtesy."""

import pytest

from aitp_tasks.generation.responses import UnreadableError, read

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
CHANGES = [
    "Actually, I would change the quality to 6.",
    "Edit: the difficulty is 4.",
    "No, that is wrong.",
    "On reflection, this is too generous.",
    "Sorry, ignore that.",
    "I take that back.",
    "Hmm, let me think again.",
    "Oops, I misread the question.",
    "My apologies, the answer should mention gabbro.",
    "Scratch that.",
    "Update: see below.",
    "Please disregard the above.",
    "That was only a first attempt.",
    "This is just an example.",
    "I hope this is what you meant, although I am not sure",
    "I hope this helps; the last step is false",
    "Let me know if you want the corrected version",
    "Let me know if the quality should be lower",
    "Feel free to replace the answer with granite",
    "Thank you for the correction, it is granite",
    "Ask if anything is unclear. Granite is the answer.",
    "The score could be higher.",
    "P.S. The unit is kg.",
    "Note that the answer depends on the pressure.",
    "Ich nehme das zurück.",
    "Ich hoffe, das hilft, aber es ist falsch.",
    "En realidad, es granito.",
    "En fait, c'est du granit.",
    "实际上，质量应为六分。",
    "実際には違います。",
    "Is there an error? Yes.",
    "Do you want the real answer?",
    "If you need it, the answer is granite",
    "以上是草稿",
    "希望这有帮助，不过答案是错的",
    "Done wrong",
    "I hope that I did not make an error in the last step",
    "Here is the rest: granite.",
]
COURTESIES = [
    "I hope this helps!",
    "Let me know if you have any questions.",
    "Hope that helps. Feel free to ask more questions!",
    "Done.",
    "Please let me know if you need anything else.",
    "Happy to help further!",
    "Is there anything else I can help you with?",
    "If you have any other questions, feel free to ask!",
    "If you have further questions, let me know.",
    "Thank you!",
    "</answer>",
    "<|im_end|>",
    "Ich hoffe, das hilft Ihnen weiter!",
    "Espero que esto te ayude.",
    "J'espère que cela vous aide.",
    "Espero que ajude!",
    "Spero che sia utile.",
    "Ik hoop dat dit helpt.",
    "Надеюсь, это поможет!",
    "希望这对你有帮助。",
    "如果您有其他问题，请随时提问。",
    "ご参考になれば幸いです。",
    "お役に立てば幸いです。",
    "Good luck with your studies!",
    "Lass mich wissen, wenn du Fragen hast.",
    "Lassen Sie mich wissen, ob Sie weitere Fragen haben.",
    "Si tienes más preguntas, no dudes en preguntar.",
    "N'hésitez pas à me poser d'autres questions.",
    "Fammi sapere se hai altre domande.",
    "That concludes my evaluation.",
    "Let me know if you'd like me to adjust the questions or add more.",
]


@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```"])
@pytest.mark.parametrize("behind", CHANGES)
def test_text_that_may_change_the_object_refuses_it(behind: str, fence: str) -> None:
    with pytest.raises(UnreadableError):
        read(fence.replace("{}", '{"answer": "Basalt."}') + f"\n\n{behind}", SCHEMA)


@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```"])
@pytest.mark.parametrize("behind", COURTESIES)
def test_a_courtesy_changes_nothing(behind: str, fence: str) -> None:
    response = read(fence.replace("{}", '{"answer": "Basalt."}') + f"\n\n{behind}", SCHEMA)
    assert response.value == {"answer": "Basalt."}
