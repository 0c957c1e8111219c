"""Cases of the versions of a dataset: list, show, diff, rollback, export, people's marks, lineage.

Told by somebody who had not read the code.

`PAIRS` and `VERSIONS` are a small world that most cases share; a case names the versions that are there and which one
`latest.json` names.  Version names are handles: put the real names in their place, in the same order of age.  So are pair
ids, but their beginnings matter (`AMBIGUOUS_PREFIX`).

Of a case: `given`; `do`, commands as lists of arguments behind `aitp` (`--config` left out), or steps in words in angle
brackets; `want`: `exit` (0 done, 2 wrong input, 75 a passing fault; a list where the words leave several open), `says`
(each must be in the output, in any wording where it is a name or number), `says_not` (must not be anywhere in it), and facts
by their names; `sure`: "words" where issue or docs determine it, "reader" where only a reasonable user would expect it.
"""

# Each case on as few lines as it needs: they are read as a table.
# fmt: off
# ruff: noqa: E501
from __future__ import annotations

DOLPHIN = "\U0001f42c"

# id -> what a version has of a pair
PAIRS = {
    "a1" * 16: {"doc_id": "d1" * 16, "source": "news", "dump": "2026-11-20", "quality": 8, "difficulty": 5,
                "question": "Why does sea ice float?", "answer": "Because it is less dense than water."},
    "b2" * 16: {"doc_id": "d2" * 16, "source": "news", "dump": "2026-11-20", "quality": 7, "difficulty": 4,
                "question": "What turns milk into cheese?", "answer": "Rennet, which curdles it."},
    "c3" * 16: {"doc_id": "d3" * 16, "source": "law", "dump": "2026-11-20", "quality": 9, "difficulty": 6,
                "question": "Was ist eine Hypothek?", "answer": "Ein Pfandrecht an einem Grundst\u00fcck."},
    "abcd" + "0" * 28: {"doc_id": "d4" * 16, "source": "law", "dump": "2026-11-21", "quality": 6, "difficulty": 3,
                        "question": "When is a contract void?", "answer": "When its purpose is illegal."},
    "abcd" + "f" * 28: {"doc_id": "d5" * 16, "source": "sea", "dump": "2026-11-21", "quality": 8, "difficulty": 7,
                        "question": f"How do dolphins {DOLPHIN} sleep?", "answer": "With one half of the brain at a time."},
    "e6" * 16: {"doc_id": "d6" * 16, "source": "sea", "dump": "2026-11-22", "quality": 10, "difficulty": 8,
                "question": "\u6f6e\u6c50\u306f\u306a\u305c\u8d77\u3053\u308b\u306e\u3067\u3059\u304b\u3002", "answer": "\u6708\u306e\u5f15\u529b\u306b\u3088\u308b\u3082\u306e\u3067\u3059\u3002"},
}
A, B, C, D, E, F = PAIRS
AMBIGUOUS_PREFIX = "abcd"

# `left_out`: pairs of the base that this version no longer has, and why
VERSIONS = {
    "v1": {"base": None, "sft_rows": 100, "pairs": [A, B, C], "left_out": {}},
    "v2": {"base": "v1", "sft_rows": 100, "pairs": [A, C, D, E], "left_out": {B: "marked_bad"}},
    "v3": {"base": "v2", "sft_rows": 90, "pairs": [C, D, E, F], "left_out": {A: "sft_twin"}},
    # made on v1 beside v2: finished late, never the latest
    "w2": {"base": "v1", "sft_rows": 100, "pairs": [A, B, C, F], "left_out": {}},
}
LINE = {"versions": ["v1", "v2", "v3"], "latest": "v3"}

HOSTILE_TEXT = (
    "<script>alert(1)</script> {{7777*7777}} {0.__class__} %s %(x)s $HOME `id` $(id) \"'\\ \x1b[31mred\x1b[0m \x07 \u202egnp.exe "
    "<|im_end|>\n---\nlicense: other\n"
)

LIST_SHOW = [
    {"id": "list-line", "given": LINE, "do": [["dataset", "list"]],
     "want": {"exit": 0, "says": ["v1", "v2", "v3"], "rows": {"v1": 103, "v2": 104, "v3": 94},
              "pairs": {"v1": 3, "v2": 4, "v3": 4}, "marked_as_latest": ["v3"], "each_once": True},
     "sure": "words", "why": "listed; a reader must see which one is latest, and rows are SFT and pairs together"},
    {"id": "list-none", "given": {"versions": [], "latest": None}, "do": [["dataset", "list"]],
     "want": {"exit": 0, "versions": []},
     "sure": "reader", "why": "a line that has not begun has no versions; asking is no error"},
    {"id": "list-one", "given": {"versions": ["v1"], "latest": "v1"}, "do": [["dataset", "list"]],
     "want": {"exit": 0, "versions": ["v1"], "marked_as_latest": ["v1"]},
     "sure": "words", "why": "one version"},
    {"id": "list-with-one-beside", "given": {"versions": ["v1", "v2", "w2"], "latest": "v2"}, "do": [["dataset", "list"]],
     "want": {"exit": 0, "says": ["v1", "v2", "w2"], "marked_as_latest": ["v2"], "base": {"w2": "v1", "v2": "v1", "v1": None}},
     "sure": "reader", "why": "what was finished late or not promoted is a version too, and must not look like the latest"},
    {"id": "list-after-rollback", "given": {"versions": ["v1", "v2", "v3"], "latest": "v1"}, "do": [["dataset", "list"]],
     "want": {"exit": 0, "says": ["v1", "v2", "v3"], "marked_as_latest": ["v1"]},
     "sure": "words", "why": "latest is what the pointer names, not the youngest"},
    {"id": "list-half-written", "given": {"versions": ["v1"], "latest": "v1",
                                          "objects": ["datasets/NAME/v9/data/train-00000-of-00001.parquet", "datasets/NAME/v9/README.md"]},
     "do": [["dataset", "list"]],
     "want": {"exit": 0, "versions": ["v1"], "says_not": ["v9"]},
     "sure": "words", "why": "version.json is written last: what has none does not exist"},
    {"id": "list-other-folders", "given": {**LINE, "objects": ["datasets/NAME/records/pairs-0.parquet", "datasets/NAME/plans/x.json",
                                                                "datasets/NAME/marks/" + A + ".json", "datasets/NAME/dumps/taken-in/d.json"]},
     "do": [["dataset", "list"]],
     "want": {"exit": 0, "versions": ["v1", "v2", "v3"]},
     "sure": "words", "why": "records, plans, marks, dumps are no versions"},
    {"id": "list-name-is-prefix-of-another-dataset", "given": {**LINE, "other_datasets": {"NAME-2": ["v1"], "NAME.old": ["v1"]}},
     "do": [["dataset", "list"]], "want": {"exit": 0, "versions": ["v1", "v2", "v3"]},
     "sure": "reader", "why": "datasets/NAME must not match datasets/NAME-2"},
    {"id": "list-latest-names-what-is-gone", "given": {"versions": ["v1"], "latest": "v2"}, "do": [["dataset", "list"]],
     "want": {"exit": [0, 2], "says": ["v1", "v2"], "traceback": False},
     "sure": "reader", "why": "a pointer to nothing is told by name, not passed over, and not a crash"},
    {"id": "list-thousand", "given": {"versions": "1,000 versions, each on the one before", "latest": "the last"}, "do": [["dataset", "list"]],
     "want": {"exit": 0, "count": 1000, "all_listed_in_json": True},
     "sure": "reader", "why": "more versions than one page of an S3 listing (1,000 keys with their files)"},
    {"id": "show-one", "given": LINE, "do": [["dataset", "show", "v2"]],
     "want": {"exit": 0, "says": ["v2", "v1", "104", "100", "4"], "base": "v1", "removed": {"marked_bad": 1}, "by_source": {"news": 1, "law": 2, "sea": 1},
              "by_dump": {"2026-11-20": 2, "2026-11-21": 2}},
     "sure": "words", "why": "counts, base, shares by source and dump"},
    {"id": "show-default", "given": {"versions": ["v1", "v2", "v3"], "latest": "v2"}, "do": [["dataset", "show"], ["dataset", "show", "latest"]],
     "want": {"exit": [0, 2], "where_0_says": ["v2"]},
     "sure": "reader", "why": "without a name, or by 'latest', the pointer's version; never the youngest"},
    {"id": "show-unknown", "given": LINE, "do": [["dataset", "show", "v7"]],
     "want": {"exit": 2, "says": ["v7"], "traceback": False},
     "sure": "words", "why": "wrong input: the thing, its value, the remedy in one line"},
    {"id": "show-path-as-name", "given": LINE, "do": [["dataset", "show", "../other/v1"], ["dataset", "show", ".."], ["dataset", "show", ""], ["dataset", "show", "v1/"], ["dataset", "show", "v1\nv2"]],
     "want": {"exit": 2, "each": True, "reads_outside": False, "traceback": False},
     "sure": "reader", "why": "a name is no path; the log line stays one line"},
]

DIFF = [
    {"id": "diff-neighbours", "given": LINE, "do": [["dataset", "diff", "v1", "v2"]],
     "want": {"exit": 0, "added": sorted([D, E]), "removed": {"marked_bad": [B]}, "unchanged_pairs": 2, "rows": [103, 104],
              "share_by_source": {"news": [2 / 3, 1 / 4], "law": [1 / 3, 2 / 4], "sea": [0, 1 / 4]},
              "share_by_dump": {"2026-11-20": [1, 1 / 2], "2026-11-21": [0, 1 / 2]}},
     "sure": "words", "why": "added, removed by reason, figures, shares; shares of pairs (of rows they would be over 103 and 104)"},
    {"id": "diff-over-two", "given": LINE, "do": [["dataset", "diff", "v1", "v3"]],
     "want": {"exit": 0, "added": sorted([D, E, F]), "removed": {"marked_bad": [B], "sft_twin": [A]}, "sft_rows": [100, 90]},
     "sure": "words", "why": "reasons of versions between A and B count: B left in v2, A in v3"},
    {"id": "diff-backwards", "given": LINE, "do": [["dataset", "diff", "v2", "v1"]],
     "want": {"exit": 0, "added": [B], "removed_ids": sorted([D, E]), "invented_reason": False},
     "sure": "reader", "why": "A to B by the order given; D and E have no reason for leaving, and none is made up"},
    {"id": "diff-itself", "given": LINE, "do": [["dataset", "diff", "v2", "v2"]],
     "want": {"exit": 0, "added": [], "removed": {}, "changed_figures": {}},
     "sure": "words", "why": "nothing differs"},
    {"id": "diff-siblings", "given": {"versions": ["v1", "v2", "w2"], "latest": "v2"}, "do": [["dataset", "diff", "v2", "w2"]],
     "want": {"exit": 0, "added": sorted([B, F]), "removed_ids": sorted([D, E])},
     "sure": "reader", "why": "two versions of one base compare by their rows; B is 'added' as w2 still has it"},
    {"id": "diff-unknown", "given": LINE, "do": [["dataset", "diff", "v1", "v9"], ["dataset", "diff", "v9", "v1"]],
     "want": {"exit": 2, "each": True, "says": ["v9"], "traceback": False},
     "sure": "words", "why": "wrong input names the one that is not there"},
    {"id": "diff-one-name", "given": LINE, "do": [["dataset", "diff", "v1"]],
     "want": {"exit": 2}, "sure": "words", "why": "diff takes two"},
    {"id": "diff-to-nothing-left", "given": {"versions": ["v1", "x2"], "latest": "x2",
                                              "x2": {"base": "v1", "sft_rows": 100, "pairs": [], "left_out": {A: "marked_bad", B: "prompt_withdrawn", C: "prompt_withdrawn"}}},
     "do": [["dataset", "diff", "v1", "x2"]],
     "want": {"exit": 0, "added": [], "removed": {"marked_bad": [A], "prompt_withdrawn": sorted([B, C])}, "nan": False, "traceback": False},
     "sure": "words", "why": "shares of no pairs must not divide by zero"},
    {"id": "diff-only-figures", "given": {"versions": ["v1", "x2"], "latest": "x2",
                                           "x2": {"base": "v1", "sft_rows": 99, "pairs": [A, B, C], "left_out": {}}},
     "do": [["dataset", "diff", "v1", "x2"]],
     "want": {"exit": 0, "added": [], "removed": {}, "changed_figures": {"rows": [103, 102], "sft_rows": [100, 99]}},
     "sure": "words", "why": "changed figures alone"},
    {"id": "diff-hostile-texts", "given": {"versions": ["v1", "x2"], "latest": "x2", "pair_texts": {"of_every_new_pair": HOSTILE_TEXT}},
     "do": [["dataset", "diff", "v1", "x2"]],
     "want": {"exit": 0, "says_not": ["\x1b", "\x07", "\u202e", "60481729"], "stdout_is_one_line_of_json": True},
     "sure": "reader", "why": "examples side by side are data: no control character reaches the terminal, nothing is expanded"},
    {"id": "diff-examples-bounded", "given": {"versions": "two, 50,000 pairs exchanged, one text of 1 MB", "latest": "the second"}, "do": [["dataset", "diff", "v1", "x2"]],
     "want": {"exit": 0, "added_count": 50000, "removed_count": 50000, "output_bytes_at_most": 1_000_000, "repeat_is_equal": True},
     "sure": "reader", "why": "counts in full, examples a few, cut; the same ones each time"},
]

ROLLBACK = [
    {"id": "rollback-one-back", "given": LINE, "do": [["dataset", "rollback", "v2"]],
     "want": {"exit": 0, "latest_after": "v2", "versions_after": ["v1", "v2", "v3"], "says": ["v2", "v3"],
              "next_night_builds_on": "v2"},
     "sure": "words", "why": "moves latest, deletes nothing, says what the next night will build on"},
    {"id": "rollback-to-first", "given": LINE, "do": [["dataset", "rollback", "v1"]],
     "want": {"exit": 0, "latest_after": "v1", "next_night_builds_on": "v1"},
     "sure": "words", "why": "any earlier version"},
    {"id": "rollback-to-latest", "given": LINE, "do": [["dataset", "rollback", "v3"]],
     "want": {"exit": [0, 2], "latest_after": "v3", "says": ["v3"]},
     "sure": "reader", "why": "nothing to do: told as such, the pointer stays"},
    {"id": "rollback-twice", "given": LINE, "do": [["dataset", "rollback", "v2"], ["dataset", "rollback", "v2"]],
     "want": {"exit_of_first": 0, "latest_after": "v2"},
     "sure": "reader", "why": "said twice is said once: the second must not go one further back"},
    {"id": "rollback-and-forth", "given": LINE, "do": [["dataset", "rollback", "v1"], ["dataset", "rollback", "v3"]],
     "want": {"latest_after": "v3", "exit": 0},
     "sure": "reader", "why": "a rollback must be revocable by the same command"},
    {"id": "rollback-unknown", "given": LINE, "do": [["dataset", "rollback", "v9"]],
     "want": {"exit": 2, "latest_after": "v3", "says": ["v9"]},
     "sure": "words", "why": "latest never names a version that is not whole"},
    {"id": "rollback-half-written", "given": {**LINE, "objects": ["datasets/NAME/v9/data/train-00000-of-00001.parquet"]},
     "do": [["dataset", "rollback", "v9"]], "want": {"exit": 2, "latest_after": "v3"},
     "sure": "words", "why": "without version.json it does not exist"},
    {"id": "rollback-two-at-once", "given": LINE, "do": ["<both read latest=v3, then>", ["dataset", "rollback", "v2"], ["dataset", "rollback", "v1"]],
     "want": {"latest_after": ["v1", "v2"], "loser_says_so": True, "silent_overwrite": False},
     "sure": "words", "why": "compare-and-swap: one wins, the other is told that latest moved and to what; it does not overwrite unseen"},
    {"id": "rollback-while-night-finishes", "given": LINE, "do": ["<a night on v3 is between its version.json (v4) and latest>", ["dataset", "rollback", "v2"], "<the night moves latest>"],
     "want": {"latest_after": "v2", "v4_exists": True, "night_says_late": True},
     "sure": "words", "why": "a version becomes the latest only if its base is"},
    {"id": "rollback-night-first", "given": LINE, "do": ["<rollback reads latest=v3>", "<a night moves latest to v4>", "<rollback to v2 swaps>"],
     "want": {"exit": [2, 75], "latest_after": "v4", "says": ["v4"]},
     "sure": "words", "why": "the person decided without having seen v4: the swap fails and says so"},
    {"id": "rollback-no-line", "given": {"versions": [], "latest": None}, "do": [["dataset", "rollback", "v1"]],
     "want": {"exit": 2, "latest_after": None}, "sure": "words", "why": "nothing to go back to"},
    {"id": "rollback-to-one-beside", "given": {"versions": ["v1", "v2", "w2"], "latest": "v2"}, "do": [["dataset", "rollback", "w2"]],
     "want": {"exit": [0, 2], "latest_after": ["w2", "v2"], "says": ["w2"]},
     "sure": "reader", "why": "'back' does not say; if moved, it says that w2 is no ancestor of v2; if refused, why"},
    {"id": "rollback-keeps-a-mark", "given": LINE, "do": [["dataset", "mark", C, "bad"], ["dataset", "rollback", "v1"], "<next night>"],
     "want": {"next_version_has_not": [C, B]},
     "sure": "words", "why": "marks lie with the line, not with a version: C and B (marked bad before v2) leave again after a rollback"},
]

MARKS = [
    {"id": "mark-bad", "given": LINE, "do": [["dataset", "mark", C, "bad", "--note", "wrong law"], "<next night>"],
     "want": {"exit": 0, "v3_still_has": [C], "next_version_has_not": [C], "reason": {C: "marked_bad"}, "note_kept": "wrong law"},
     "sure": "words", "why": "versions are immutable; it leaves with the next one"},
    {"id": "mark-good", "given": LINE, "do": [["dataset", "mark", C, "good"], "<next night>"],
     "want": {"exit": 0, "next_version_has": [C], "counted": {"good": 1, "bad": 0}},
     "sure": "words", "why": "good is kept in storage and counts as a mark; it takes nothing out"},
    {"id": "mark-bad-then-good", "given": LINE, "do": [["dataset", "mark", C, "bad"], ["dataset", "mark", C, "good"], "<next night>"],
     "want": {"next_version_has": [C]}, "sure": "words", "why": "good takes the mark back (how-to/tidy.md)"},
    {"id": "mark-bad-twice", "given": LINE, "do": [["dataset", "mark", C, "bad", "--note", "one"], ["dataset", "mark", C, "bad", "--note", "two"]],
     "want": {"exit": 0, "note_kept": "two", "marks_of_pair": 1}, "sure": "reader", "why": "the later mark counts, not two"},
    {"id": "mark-by-beginning", "given": LINE, "do": [["dataset", "mark", C[:8], "bad"]],
     "want": {"exit": 0, "marked": C}, "sure": "words", "why": "the beginning is enough"},
    {"id": "mark-ambiguous", "given": LINE, "do": [["dataset", "mark", AMBIGUOUS_PREFIX, "bad"]],
     "want": {"exit": 2, "marked": None}, "sure": "reader", "why": "two pairs begin so: no guess"},
    {"id": "mark-unknown", "given": LINE, "do": [["dataset", "mark", "9" * 32, "bad"]],
     "want": {"exit": 2, "marked": None}, "sure": "words", "why": "its id in the latest version"},
    {"id": "mark-left-already", "given": LINE, "do": [["dataset", "mark", B, "good"]],
     "want": {"exit": [0, 2], "says_plainly": True},
     "sure": "reader", "why": "B left as marked_bad and is in no latest version: either taken back or refused by name"},
    {"id": "mark-hostile-id", "given": LINE, "do": [["dataset", "mark", "../../latest", "bad"], ["dataset", "mark", "", "bad"], ["dataset", "mark", "*", "bad"], ["dataset", "mark", "--", "bad"]],
     "want": {"exit": 2, "each": True, "objects_written": 0},
     "sure": "reader", "why": "an id is no path; an empty beginning fits every pair and must mark none"},
    {"id": "mark-hostile-note", "given": LINE, "do": [["dataset", "mark", C, "bad", "--note", HOSTILE_TEXT]],
     "want": {"exit": 0, "note_kept": HOSTILE_TEXT, "shown_escaped": True}, "sure": "reader", "why": "a note is kept as given, shown as data"},
    {"id": "mark-neither", "given": LINE, "do": [["dataset", "mark", C, "maybe"]], "want": {"exit": 2, "marked": None},
     "sure": "words", "why": "good or bad"},
    {"id": "mark-two-people", "given": LINE, "do": ["<at once>", ["dataset", "mark", C, "bad", "--note", "Ann"], ["dataset", "mark", D, "bad", "--note", "Bob"]],
     "want": {"exit": 0, "marks_kept": sorted([C, D])}, "sure": "reader", "why": "marks on two pairs never lose one"},
]

EXPORT = [
    {"id": "export-folder", "given": LINE, "do": [["dataset", "export", "<v2 to an empty folder>"]],
     "want": {"exit": 0, "rows": 104, "files_equal_those_of_version": True, "loads_as": {"configs": 1, "splits": ["train"], "rows": 104}},
     "sure": "words", "why": "never more than the version's own files; load_dataset gives one configuration"},
    {"id": "export-unknown", "given": LINE, "do": [["dataset", "export", "<v9>"]],
     "want": {"exit": 2, "files_written": 0}, "sure": "words", "why": "wrong input"},
    {"id": "export-target-full", "given": {**LINE, "target_has": ["data/train-00000-of-00002.parquet", "notes.txt"]}, "do": [["dataset", "export", "<v2 there>"]],
     "want": {"exit": [0, 2], "mixed_rows": False, "kept": ["notes.txt"]},
     "sure": "reader", "why": "old shards beside new ones would be read as one split: refuse, or leave exactly the version; never delete what is foreign"},
    {"id": "export-twice", "given": LINE, "do": [["dataset", "export", "<v2 to F>"], ["dataset", "export", "<v2 to F>"]],
     "want": {"files_equal": True, "exit_of_first": 0}, "sure": "reader", "why": "the same bytes"},
    {"id": "export-interrupted", "given": LINE, "do": ["<export of v2 killed in the middle>", ["dataset", "export", "<v2 to the same>"]],
     "want": {"exit": [0, 2], "half_file_under_final_name": False, "rows_if_0": 104},
     "sure": "reader", "why": "no cut-off Parquet that a reader takes for whole"},
    {"id": "export-into-the-root", "given": LINE, "do": [["dataset", "export", "<v2 into its own folder, or datasets/NAME/v3>"]],
     "want": {"exit": 2, "v3_unchanged": True}, "sure": "words", "why": "versions are immutable"},
    {"id": "export-no-room", "given": {**LINE, "disk": "full"}, "do": [["dataset", "export", "<v2 there>"]],
     "want": {"exit": 75, "traceback": False}, "sure": "words", "why": "a full disk is a passing fault"},
]

LINEAGE_FIELDS = ["dump", "shard", "row", "doc_id", "span", "density_ratio", "region", "prompt_digests", "model", "revision", "sampling", "run", "gates"]

LINEAGE = [
    {"id": "lineage-one", "given": LINE, "do": [["lineage", E]],
     "want": {"exit": 0, "fields": LINEAGE_FIELDS, "says": [PAIRS[E]["doc_id"], "2026-11-21", PAIRS[E]["question"], PAIRS[E]["answer"]],
              "document_text_shown": True, "prompt_digests": 3},
     "sure": "words", "why": "the way with the texts; three prompts"},
    {"id": "lineage-of-left-pair", "given": LINE, "do": [["lineage", B]],
     "want": {"exit": 0, "found_in": "v1", "says": ["v1"], "says_it_left": "marked_bad"},
     "sure": "words", "why": "'from any version': B is only in v1"},
    {"id": "lineage-in-several", "given": LINE, "do": [["lineage", C]],
     "want": {"exit": 0, "came_with": "v1"}, "sure": "words", "why": "in v1 to v3: one way, that of the run that made it"},
    {"id": "lineage-only-beside", "given": {"versions": ["v1", "v2", "w2"], "latest": "v2"}, "do": [["lineage", F]],
     "want": {"exit": 0, "found_in": "w2"}, "sure": "words", "why": "any version, also one that never was the latest"},
    {"id": "lineage-after-rollback", "given": {"versions": ["v1", "v2", "v3"], "latest": "v1"}, "do": [["lineage", F]],
     "want": {"exit": 0, "found_in": "v3"}, "sure": "words", "why": "younger than the latest, still any version"},
    {"id": "lineage-unknown", "given": LINE, "do": [["lineage", "9" * 32]],
     "want": {"exit": 2, "says": ["9" * 32], "traceback": False}, "sure": "words", "why": "wrong input"},
    {"id": "lineage-beginning", "given": LINE, "do": [["lineage", C[:8]]], "want": {"exit": [0, 2], "if_0_pair": C},
     "sure": "reader", "why": "as for marks and explain, a beginning should be enough"},
    {"id": "lineage-ambiguous", "given": LINE, "do": [["lineage", AMBIGUOUS_PREFIX]], "want": {"exit": 2, "shows_one_of_them": False},
     "sure": "reader", "why": "two begin so"},
    {"id": "lineage-document-deleted", "given": {**LINE, "deleted_from_bucket": ["the shard of " + D]}, "do": [["lineage", D]],
     "want": {"exit": 0, "fields": LINEAGE_FIELDS, "says_document_is_gone": True, "says": [PAIRS[D]["question"], PAIRS[D]["answer"]], "traceback": False},
     "sure": "words", "why": "bad input of the issue: all that is still known is told, and what is missing by its key"},
    {"id": "lineage-shard-replaced", "given": {**LINE, "overwritten_in_bucket": ["the shard of " + D + ", another text at that row"]}, "do": [["lineage", D]],
     "want": {"exit": 0, "shows_other_text_as_the_document": False, "says_changed": True},
     "sure": "reader", "why": "identity is content: the text at shard and row is checked against the document hash before it is shown"},
    {"id": "lineage-run-collected", "given": {**LINE, "deleted_from_bucket": ["runs/ of v1's night"]}, "do": [["lineage", C]],
     "want": {"exit": 0, "says": [C, PAIRS[C]["doc_id"]], "says_what_is_missing": True, "traceback": False},
     "sure": "reader", "why": "gc or a person has removed the run's folder: the version's own columns still tell the way"},
    {"id": "lineage-span-cut", "given": {**LINE, "pair": {"document_characters": 10000, "cut_characters": 3000}}, "do": [["lineage", C]],
     "want": {"exit": 0, "span": [0, 7000]}, "sure": "reader", "why": "character span seen: documents are cut at their end (cut_characters: not seen by what answered)"},
    {"id": "lineage-span-counts-characters", "given": {**LINE, "pair": {"document": "\u00e9" * 10 + DOLPHIN * 5, "cut_characters": 0}}, "do": [["lineage", C]],
     "want": {"exit": 0, "span": [0, 15]}, "sure": "words", "why": "characters, neither bytes (40) nor UTF-16 units (20)"},
    {"id": "lineage-hostile-texts", "given": {**LINE, "pair": {"document": HOSTILE_TEXT, "question": HOSTILE_TEXT, "answer": HOSTILE_TEXT}}, "do": [["lineage", C]],
     "want": {"exit": 0, "says_not": ["\x1b", "\x07", "\u202e"], "json_restores_texts": True, "stdout_is_one_line_of_json": True},
     "sure": "reader", "why": "texts are data: no control character to the terminal, exact in the JSON"},
    {"id": "lineage-hostile-id", "given": LINE, "do": [["lineage", "../v1"], ["lineage", ""], ["lineage", "' or 1=1 --"], ["lineage", "%"]],
     "want": {"exit": 2, "each": True, "traceback": False}, "sure": "reader", "why": "an id is no path, no pattern, no query"},
    {"id": "lineage-sft-row", "given": LINE, "do": [["lineage", "<doc id of an SFT example>"]],
     "want": {"exit": 2}, "sure": "reader", "why": "an SFT example is no pair and has no pair id"},
    {"id": "lineage-twice", "given": LINE, "do": [["lineage", E], ["lineage", E]], "want": {"exit": 0, "equal_output": True, "objects_written": 0},
     "sure": "reader", "why": "it reads, and writes nothing"},
]

CASES = LIST_SHOW + DIFF + ROLLBACK + MARKS + EXPORT + LINEAGE
