"""Gates of generated text that need no model: cheap, deterministic, the same everywhere.

``questions.closed`` says why a question is not asked, ``answers.closed`` why an
answer is not kept. A gate that cannot tell is open: what it closes should be
wrong for sure, and what it leaves open is for the model to judge.

Below them, in the order of use: ``languages`` (what is known of ten languages, one file
each; ``texts.identification`` tells 140 apart), ``analysis`` (a text and its forms); then
gates of their own: ``asking``, ``mentions``, ``material``, ``foreign``, ``similarity``,
``refusing``, ``endings`` and ``overlap``.

Whoever changes what a gate closes counts up ``records.plan.RULES``.
"""
