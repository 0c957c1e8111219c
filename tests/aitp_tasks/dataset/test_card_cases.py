"""Each case of a card, of Croissant and of a publication is shown by a test, or says why it is not."""

import ast
from pathlib import Path

import pytest

from tests.aitp_tasks.dataset import card_cases

TESTS = Path(__file__).parents[1]
CARD, FRONT, CROISSANT = (f"dataset/test_{name}.py" for name in ("card", "front", "croissant"))
LAYOUT, HUB, PREFIX = ("stages/test_assemble_layout.py", "tools/test_publish_hub.py", "tools/test_publish.py")
_PRODUCT = "test_the_pages_of_both_releases_show_pairs_of_the_dataset"
_REFUSAL = "test_a_refusal_leaves_nothing_half_there_and_the_next_try_goes_on"
_FOREIGN = "test_a_repository_of_somebody_else_is_left_alone"
_FOLDER = "test_its_folder_holds_the_dataset_and_records_lie_elsewhere"
_WHOLE = "test_a_version_that_is_not_whole_or_not_as_it_was_is_refused"
_EARLY = "test_what_cannot_be_published_is_refused_before_anything_is_asked"
_OTHER = "test_a_version_that_is_there_with_other_content_is_left_alone"
_RESUMED = "test_what_was_broken_off_goes_on_and_what_tells_of_the_others_comes_last"
_WRITTEN = "test_the_versions_own_files_are_written_as_they_are"
SHOWN = {
    "front-smallest": (CARD, "test_its_front_matter_names_one_split"),
    "front-sizes": (FRONT, "test_a_size_is_one_of_the_hubs_categories"),
    "front-licences": ("test_config.py", "test_a_licence_is_one_that_the_hub_knows"),
    "front-languages-typed": (FRONT, "test_texts_stay_texts"),
    "front-tags-typed": (FRONT, "test_texts_stay_texts"),
    "front-control-characters": (FRONT, "test_whatever_a_text_holds_it_is_read_again"),
    "front-no-language-known": (FRONT, "test_no_language_and_no_licence_are_claimed_where_none_is_known"),
    "front-two-languages": (
        "dataset/test_languages.py",
        "test_all_languages_of_more_than_a_few_rows_are_told",
    ),
    "front-validation-split": (CARD, "test_a_split_for_validations_is_one_of_two"),
    "front-no-validation": (CARD, "test_all_loads_as_one_split_beside_its_picture"),
    "front-many-shards": (CROISSANT, "test_all_shards_are_read_once_wherever_the_folder_lies"),
    "front-deterministic": (CARD, "test_the_same_rows_make_the_same_card"),
    "card-sections": (CARD, "test_it_has_all_sections_and_each_link_leads_somewhere"),
    "card-not-evaluated": (CARD, "test_a_card_is_finished_with_licence_and_evaluation"),
    "card-picture-is-there": (CARD, "test_it_has_all_sections_and_each_link_leads_somewhere"),
    "card-funnel-adds-up": (LAYOUT, _FOLDER),
    "card-json-counts": (CARD, "test_it_says_what_the_json_files_do_not_hold"),
    "card-marks": (CARD, "test_it_says_how_many_rows_hold_marks"),
    "card-marks-none": (CARD, "test_it_says_how_many_rows_hold_marks"),
    "card-nothing-new": (CARD, "test_the_edges_have_no_share_of_nothing"),
    "card-only-pairs": (CARD, "test_the_edges_have_no_share_of_nothing"),
    "card-hostile-source": (CARD, "test_names_from_the_data_do_nothing"),
    "card-hostile-samples": (CARD, "test_no_text_of_a_row_stands_in_it"),
    "card-samples-from-product": (LAYOUT, _PRODUCT),
    "card-secrets": (CARD, "test_it_says_nothing_of_the_machine"),
    **{
        case["id"]: ("dataset/test_template.py", "test_a_template_is_used_or_refused_by_name")
        for case in card_cases.TEMPLATES
    },
    "croissant-validates": (CROISSANT, "test_records_are_the_rows"),
    "croissant-reads-all": (CROISSANT, "test_records_are_the_rows"),
    "croissant-reads-shards": (CROISSANT, "test_all_shards_are_read_once_wherever_the_folder_lies"),
    "croissant-values": (CROISSANT, "test_records_are_the_rows"),
    "croissant-sft-only": (CROISSANT, "test_the_sft_set_alone_and_turns_as_json_are_read"),
    "croissant-turns-as-json": (CROISSANT, "test_the_sft_set_alone_and_turns_as_json_are_read"),
    "croissant-moved": (CROISSANT, "test_all_shards_are_read_once_wherever_the_folder_lies"),
    "croissant-damaged-file": (CROISSANT, "test_a_file_that_was_changed_is_found_out"),
    "croissant-no-licence": (CROISSANT, "test_the_licence_is_the_configured_one"),
    "croissant-not-taken-for-data": (CROISSANT, "test_nothing_beside_the_rows_is_taken_for_rows"),
    "hub-first": (HUB, "test_a_version_becomes_one_commit_with_its_tag"),
    "hub-public": (HUB, "test_everybody_may_read_it_only_where_that_was_said"),
    "hub-exists-public": (HUB, "test_who_may_read_a_repository_that_is_there_is_not_changed"),
    "hub-foreign-files": (HUB, _FOREIGN),
    "hub-again-unchanged": (HUB, "test_a_second_time_changes_nothing"),
    "hub-killed": (HUB, "test_what_was_uploaded_before_the_fault_is_not_uploaded_again"),
    "hub-refuses-in-the-middle": (HUB, _REFUSAL),
    "hub-commit-conflict": (HUB, "test_another_commit_meanwhile_is_not_overwritten"),
    "hub-commit-lost-answer": (HUB, "test_a_commit_whose_answer_was_lost_is_found"),
    "hub-401": (HUB, _REFUSAL),
    "hub-403-create": (HUB, _REFUSAL),
    "hub-429": (HUB, _REFUSAL),
    "hub-validate-refuses": (
        HUB,
        "test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_uploaded",
    ),
    "hub-validate-warns": (HUB, "test_a_warning_of_the_hub_is_told_and_stops_nothing"),
    "hub-unknown-licence": (HUB, _EARLY),
    "hub-names": (HUB, "test_names_of_no_repository_are_refused_before_anything_is_asked"),
    "hub-extra-objects": (HUB, "test_only_the_versions_own_files_are_handed_on"),
    "hub-unknown-version": (HUB, _EARLY),
    "hub-file-damaged": (PREFIX, _WHOLE),
    "hub-tag-exists-otherwise": (HUB, "test_a_tag_with_other_content_is_left_alone"),
    "hub-large": (HUB, "test_a_large_file_is_never_in_memory_as_a_whole"),
    "hub-two-at-once": (HUB, "test_two_at_once_leave_one_content"),
    "s3-first": (PREFIX, "test_to_an_s3_prefix_the_same_objects_are_written"),
    "s3-slash": (PREFIX, _WRITTEN),
    "s3-again": (PREFIX, _WRITTEN),
    "s3-killed": (PREFIX, _RESUMED),
    "s3-other-content": (PREFIX, _OTHER),
    "s3-foreign": (PREFIX, _WRITTEN),
    "s3-into-root": (PREFIX, "test_nothing_is_published_into_the_pipelines_own_root"),
    "s3-no-bucket": (PREFIX, "test_a_store_that_refuses_is_told"),
    "s3-denied": (PREFIX, "test_a_store_that_refuses_is_told"),
    "s3-503": (PREFIX, _RESUMED),
    "s3-odd-scheme": (PREFIX, "test_what_is_no_place_is_refused"),
}


@pytest.mark.parametrize("case", card_cases.CASES, ids=lambda case: case["id"])
def test_a_case_is_shown_by_a_test(case: dict[str, object]) -> None:
    name = str(case["id"])
    module, test = SHOWN[name]
    assert test in functions(TESTS / module)


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
