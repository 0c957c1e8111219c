"""What the card says that a version does not keep: for whoever would expect it."""

from collections.abc import Mapping

from aitp_tasks.config import Assemble, RunConfig

_ALWAYS = (
    "- Pairs are synthetic: a model has written the questions and the answers. It makes mistakes and can be "
    "wrong about what its document says; nobody has read them all. Gates and scores leave out some of that, "
    "not all.",
    "- Documents come from a pre-training corpus as they are: what is false, one-sided or offensive there "
    "can be here. What a document says held when it was written.",
    "- A document is looked for where the SFT set is thin in one embedding, projected; what that cannot tell "
    "apart is not told apart.",
)


def of_version(config: RunConfig, languages: Mapping[str, int]) -> list[str]:
    """The lines of the section.

    Args:
        config: of the run that makes the version.
        languages: of the rows that were looked at, how many are in each.
    """
    return [
        *_ALWAYS,
        _near_duplicates(config.assemble),
        "- Evaluation sets: only those above were looked for."
        if config.contamination.sets
        else "- Evaluation sets: none were looked for; a benchmark's items may be among the rows.",
        _personal_data(config.assemble),
        f"- Languages were told by machine, of the first {sum(languages.values())} rows that tell theirs."
        if languages
        else "- Which languages the rows are in is not known.",
    ]


def _near_duplicates(settings: Assemble) -> str:
    vectors, texts = settings.max_similarity, settings.max_text_similarity
    by_vectors = "vectors were not compared" if vectors == 1 else f"with a cosine above {vectors:g}"
    by_texts = "texts were not compared" if texts == 1 else f"with a similarity of texts above {texts:g}"
    return (
        f"- Near-duplicates: new pairs are left out that are like another row ({by_vectors}; {by_texts}). "
        "SFT examples are not compared with each other."
    )


def _personal_data(settings: Assemble) -> str:
    masked = f"{', '.join(settings.mask)} masked in new pairs by patterns, which miss some"
    return f"- Personal data: {masked if settings.mask else 'not masked'}; SFT examples stay as they are."
