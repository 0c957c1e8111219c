"""Gates of generated text that need no model: cheap, deterministic, the same everywhere.

``questions.closed`` says why a question is not asked, ``answers.closed`` why an
answer is not kept. A gate that cannot tell is open: what it closes should be
wrong for sure, and what it leaves open is for the model to judge.

Below them: ``words`` (texts and their words, in any script), ``languages`` (what
is known of ten languages, one file each), ``asking``, ``mentions``,
``identification`` and ``similarity`` (one gate each).
"""
