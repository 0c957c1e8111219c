"""Cases of the corpus side: what lies in `corpus/<dump>/**` and what must come of it."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import struct

import pyarrow as pa
import zstandard

from tests.aitp_tasks.inputs.case import (
    HTML,
    LFS,
    Case,
    array,
    bz,
    csv_bytes,
    gz,
    ipc_file,
    ipc_stream,
    jsonl,
    line,
    parquet,
    pieces,
    tar,
    xz,
    zst,
)

_SUBJECTS = (
    "The lock keeper at gate",
    "A surveyor on meadow",
    "The night baker of street",
    "An archivist in room",
    "The ferry pilot of pier",
    "A beekeeper near hive",
    "The tuner of piano",
    "A glazier in workshop",
)
_DOINGS = (
    "writes down every barge that passes before noon.",
    "measures the same ditch twice and trusts neither number.",
    "starts the ovens while the rest of the town still sleeps.",
    "labels each box by the colour of its string.",
    "waits for the fog to lift before he casts off.",
    "counts the frames and leaves the honey for the winter.",
    "listens for the one string that drifts.",
    "cuts the pane a hair too small, and on purpose.",
)


def t(i: int) -> str:
    return f"{_SUBJECTS[i % 8]} {i} {_DOINGS[(i // 8 + i) % 8]}"


def ts(*numbers: int) -> list[str | None]:
    return [t(i) for i in numbers]


def docs(*numbers: int) -> list[dict]:
    return [{"id": f"doc-{i}", "text": t(i)} for i in numbers]


def good(*numbers: int) -> bytes:
    return parquet(docs(*numbers))


ALL: dict = {"failure_budget": 1.0}
CASES: list[Case] = []


def case(name: str, files, **kw) -> None:
    CASES.append(Case(name=name, files=files, **kw))


# ---------------------------------------------------------------- endings and compressions

case(
    "ending_parquet_upper_case",
    lambda: {"A-00000.PARQUET": good(1, 2), "b-00001.parquet": good(3), "c-00002.Parquet": good(4)},
    texts=ts(1, 2, 3, 4),
    why="Endings are taken without regard to case.",
)
case(
    "ending_pq_is_parquet",
    lambda: {"part-0.pq": good(1, 2), "part-1.parquet": good(3)},
    texts=ts(1, 2, 3),
    why=".pq is the field's short name of Parquet.",
)
case(
    "ending_ndjson_and_jsonl_upper_case",
    lambda: {
        "a.ndjson": jsonl(docs(1)),
        "b.JSONL": jsonl(docs(2)),
        "c.Jsonl.GZ": gz(jsonl(docs(3))),
        "d.NDJSON.ZST": zst(jsonl(docs(4))),
    },
    texts=ts(1, 2, 3, 4),
    why="JSON Lines under each of its names, in any case, compressed or not.",
)
case(
    "same_name_but_for_case_of_ending",
    lambda: {"part.JSONL": jsonl(docs(1, 2)), "part.jsonl": jsonl(docs(3, 4))},
    texts=ts(1, 2, 3, 4),
    why="Two objects whose names differ only in case are two objects.",
)
case(
    "every_compression_of_json_lines",
    lambda: {
        "0.jsonl": jsonl(docs(1)),
        "1.jsonl.gz": gz(jsonl(docs(2))),
        "2.jsonl.zst": zst(jsonl(docs(3))),
        "3.jsonl.bz2": bz(jsonl(docs(4))),
        "4.jsonl.xz": xz(jsonl(docs(5))),
    },
    texts=ts(1, 2, 3, 4, 5),
    why="Plain, gz, zst, bz2 and xz are all in the table of what must be read.",
)
case(
    "every_compression_of_dot_json",
    lambda: {
        "0.json": jsonl(docs(1, 6)),
        "1.json.gz": gz(jsonl(docs(2))),
        "2.json.zst": zst(jsonl(docs(3))),
        "3.json.bz2": bz(jsonl(docs(4))),
        "4.json.xz": xz(jsonl(docs(5))),
    },
    texts=ts(1, 6, 2, 3, 4, 5),
    why="C4 publishes JSON Lines as .json.gz; the same holds for the other compressions.",
)
case(
    "gzip_multi_member_cut_anywhere",
    lambda: {
        "cat.jsonl.gz": b"".join(
            gz(p)
            for p in pieces(
                jsonl(
                    [
                        *docs(1, 2, 3),
                        {"id": "u", "text": "Über den Fluß führt eine Brücke, 橋の上に人がいる。"},
                    ]
                ),
                7,
            )
        )
    },
    texts=[*ts(1, 2, 3), "Über den Fluß führt eine Brücke, 橋の上に人がいる。"],
    why="`cat a.gz b.gz` is one gzip file; members end neither at lines nor at characters.",
)
case(
    "gzip_block_members_with_empty_last_member",
    lambda: {"bgzf.jsonl.gz": gz(jsonl(docs(1, 2))) + gz(jsonl(docs(3))) + gz(b"")},
    texts=ts(1, 2, 3),
    why="bgzip ends its files with an empty member; it holds no row and is no mistake.",
)
case(
    "zstd_multi_frame_and_skippable_frame",
    lambda: {
        "pz.jsonl.zst": struct.pack("<II", 0x184D2A50, 4)
        + b"\x01\x02\x03\x04"
        + b"".join(zst(p) for p in pieces(jsonl(docs(1, 2, 3, 4)), 3))
        + struct.pack("<II", 0x184D2A5E, 2)
        + b"ok"
    },
    texts=ts(1, 2, 3, 4),
    why="pzstd writes many frames and skippable frames between them.",
)
case(
    "bz2_multi_stream",
    lambda: {"pb.jsonl.bz2": b"".join(bz(p) for p in pieces(jsonl(docs(1, 2, 3)), 4))},
    texts=ts(1, 2, 3),
    why="pbzip2 writes one stream a block.",
)
case(
    "xz_multi_stream",
    lambda: {"px.jsonl.xz": b"".join(xz(p) for p in pieces(jsonl(docs(1, 2, 3)), 4))},
    texts=ts(1, 2, 3),
    why="Concatenated .xz files are one .xz file.",
)
case(
    "zstd_frame_without_content_size",
    lambda: {"stream.jsonl.zst": _zst_stream(jsonl(docs(1, 2, 3)))},
    texts=ts(1, 2, 3),
    why="A stream's writer does not know the size, so the frame's header has none.",
)


def _zst_stream(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(sink, closefd=False) as w:
        w.write(data)
    return sink.getvalue()


case(
    "spark_names_with_compression_before_parquet",
    lambda: {
        "part-00000-1f0e-c000.snappy.parquet": parquet(docs(1), compression="snappy"),
        "part-00001-1f0e-c000.gz.parquet": parquet(docs(2), compression="gzip"),
        "part-00002-1f0e-c000.zstd.parquet": parquet(docs(3), compression="zstd"),
        "part-00003-1f0e-c000.lz4.parquet": parquet(docs(4), compression="lz4"),
    },
    texts=ts(1, 2, 3, 4),
    why="Spark names the codec before the ending; the file is Parquet.",
)
case(
    "parquet_and_json_lines_in_one_dump",
    lambda: {
        "a/part.parquet": good(1, 2),
        "b/part.jsonl.zst": zst(jsonl(docs(3))),
        "c/part.csv": csv_bytes([["id", "text"], ["5", t(5)]]),
    },
    texts=ts(1, 2, 3, 5),
    why="Every object of a known ending below the dump is read, whatever its neighbours are.",
)

# ---------------------------------------------------------------- listing: unknown, hidden, names

case(
    "unknown_readme_licence_and_sums_are_named",
    lambda: {
        "LICENSE": b"CC0\n",
        "README.md": b"# A dump\n",
        "SHA256SUMS": b"00  part.parquet\n",
        "part.parquet": good(1, 2),
    },
    texts=ts(1, 2),
    unknown=("LICENSE", "README.md", "SHA256SUMS"),
    why="Not read and not hidden, so each is named.",
)
case(
    "unknown_half_downloads_and_backups_are_named",
    lambda: {
        "p0.parquet": good(1),
        "p1.parquet.crdownload": b"PAR1",
        "p2.parquet.tmp": b"PAR1",
        "p3.jsonl.gz.part": b"\x1f\x8b",
        "p4.jsonl~": jsonl(docs(9)),
        "p5.parquet.aria2": b"\0\1",
    },
    texts=ts(1),
    unknown=("p1.parquet.crdownload", "p2.parquet.tmp", "p3.jsonl.gz.part", "p4.jsonl~", "p5.parquet.aria2"),
    why="A file that is not finished must not be read, and not be forgotten.",
)
case(
    "unknown_compressions_are_named",
    lambda: {
        "a.jsonl": jsonl(docs(1, 2)),
        "b.jsonl.lz4": b"\x04\x22\x4d\x18",
        "c.jsonl.br": b"\x0b",
        "d.zip": b"PK\x03\x04",
        "e.warc.gz": gz(b"WARC/1.0\r\n"),
    },
    texts=ts(1, 2),
    unknown=("b.jsonl.lz4", "c.jsonl.br", "d.zip", "e.warc.gz"),
    why="Endings outside the table are named, not guessed.",
)
case(
    "unknown_refuse",
    lambda: {"part.parquet": good(1, 2), "notes.docx": b"PK\x03\x04"},
    settings={"unknown_files": "refuse"},
    refused=("notes.docx",),
    why="With refuse, an object that would not be read stops the plan and is named.",
)
case(
    "unknown_refuse_lets_hidden_pass",
    lambda: {".gitattributes": b"*.parquet filter=lfs\n", "_SUCCESS": b"", "part.parquet": good(1, 2)},
    settings={"unknown_files": "refuse"},
    texts=ts(1, 2),
    hidden=2,
    why="Hidden objects are skipped by a stated convention; they are not unknown.",
)
case(
    "nothing_of_a_known_ending",
    lambda: {
        "CC-MAIN-0001.warc.gz": gz(b"WARC/1.0\r\n\r\n"),
        "CC-MAIN-0002.warc.gz": gz(b"WARC/1.0\r\n\r\n"),
    },
    refused=("warc",),
    why="A dump of which nothing can be read is refused and the message says what lies there.",
)
case(
    "hidden_success_and_parquet_metadata",
    lambda: {
        "_SUCCESS": b"",
        "_common_metadata": parquet(pa.table({"text": pa.array([], pa.string())})),
        "_metadata": parquet(pa.table({"text": pa.array([], pa.string())})),
        "part-0.parquet": good(1, 2, 3),
    },
    texts=ts(1, 2, 3),
    hidden=3,
    why="Spark's markers begin with an underscore.",
)
case(
    "hidden_temporary_and_staging_folders",
    lambda: {
        ".hive-staging_hive_2024-05-01_10-00-00_1/part-0.parquet": good(90),
        "_temporary/0/task_0001/part-0.parquet": good(91),
        "data/.ipynb_checkpoints/shard-checkpoint.jsonl": jsonl(docs(92)),
        "data/_tmp/deep/er/part-0.parquet": good(93),
        "data/shard.jsonl": jsonl(docs(1, 2)),
    },
    texts=ts(1, 2),
    hidden=4,
    why="A leading underscore or dot in any component hides what lies below.",
)
case(
    "hidden_part_file_and_crc",
    lambda: {
        ".part-0.parquet.crc": b"crc\0\0\0\0",
        "._part-0.parquet": b"\x00\x05\x16\x07Mac OS X",
        "_part-1.parquet": good(94),
        "part-0.parquet": good(1),
    },
    texts=ts(1),
    hidden=3,
    why="Hadoop's checksums, macOS's forks and a writer's unfinished file are hidden by name.",
)
case(
    "hidden_hub_cache_beside_shards",
    lambda: {
        ".cache/huggingface/download/data/train-00000.parquet.metadata": b"abc\n",
        ".cache/huggingface/.gitignore": b"*\n",
        ".gitattributes": b"",
        "README.md": b"---\n---\n",
        "data/train-00000-of-00001.parquet": good(1, 2),
    },
    texts=ts(1, 2),
    hidden=3,
    unknown=("README.md",),
    why="A download of the hub's client leaves .cache; only the card is unknown.",
)
case(
    "underscore_inside_a_name_is_not_hidden",
    lambda: {"a_b/part_0.parquet": good(1), "c.d/e.f.parquet": good(2), "x_/y_.jsonl": jsonl(docs(3))},
    texts=ts(1, 2, 3),
    why="Only a leading underscore or dot hides.",
)
case(
    "delta_table_is_refused",
    lambda: {
        "_delta_log/00000000000000000000.json": jsonl(
            [
                {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
                {"add": {"path": "part-0.parquet", "dataChange": True}},
            ]
        ),
        "_delta_log/00000000000000000001.json": jsonl(
            [
                {"remove": {"path": "part-0.parquet", "dataChange": True}},
                {"add": {"path": "part-1.parquet", "dataChange": True}},
            ]
        ),
        "part-0.parquet": good(1, 2),
        "part-1.parquet": good(1),
    },
    refused=("delta",),
    why="A Delta table's folder holds removed files too; reading all of them would bring deleted rows back.",
)
case(
    "folder_named_as_a_parquet_file",
    lambda: {
        "docs.parquet/_SUCCESS": b"",
        "docs.parquet/part-00000-c000.snappy.parquet": good(1),
        "docs.parquet/part-00001-c000.snappy.parquet": good(2),
    },
    texts=ts(1, 2),
    hidden=1,
    why="Spark writes x.parquet/ as a folder; its shards are read.",
)
case(
    "folder_named_as_json_lines_with_stranger_inside",
    lambda: {"docs.jsonl/notes.txt": b"by hand\n", "docs.jsonl/part-0.jsonl": jsonl(docs(1))},
    texts=ts(1),
    unknown=("docs.jsonl/notes.txt",),
    why="The ending of a folder says nothing of the objects in it.",
)
case(
    "deep_folders_with_equal_names",
    lambda: {
        f"2024/{m:02d}/{d:02d}/a/b/c/part-0.jsonl": jsonl(docs(10 * m + d)) for m in (1, 2) for d in (3, 4)
    },
    texts=ts(13, 14, 23, 24),
    why="Equal names in different folders are different shards.",
)
case(
    "names_with_spaces_plus_percent",
    lambda: {
        "a b/part 0.parquet": good(1),
        "c+d/part+1.parquet": good(2),
        "e%2Ff/part%20%2B2.parquet": good(3),
        "g&h=/x;y,z@1.jsonl": jsonl(docs(4)),
    },
    texts=ts(1, 2, 3, 4),
    why="Names are taken as they are, neither decoded nor encoded twice.",
)
case(
    "names_that_decode_to_each_other",
    lambda: {"a b.jsonl": jsonl(docs(1)), "a%20b.jsonl": jsonl(docs(2)), "a+b.jsonl": jsonl(docs(3))},
    texts=ts(1, 2, 3),
    why="Three names that one round of decoding would fold into one are three objects.",
)
case(
    "names_in_both_unicode_normal_forms",
    lambda: {
        "cafe\u0301.jsonl": jsonl(docs(1)),
        "caf\u00e9.jsonl": jsonl(docs(2)),
        "文書/部分-0.parquet": good(3),
        "📚.jsonl": jsonl(docs(4)),
    },
    texts=ts(1, 2, 3, 4),
    why="A store keeps both normal forms apart.",
)
case(
    "names_with_glob_and_query_characters",
    lambda: {
        "a[0-9]/b?x#y.jsonl": jsonl(docs(1)),
        "c*d/{e,f}.parquet": good(2),
        "g'h\"i/$j!(k).jsonl": jsonl(docs(3)),
    },
    texts=ts(1, 2, 3),
    why="Characters with a meaning in shells, globs, URLs and SQL have none in a key.",
)
case(
    "name_of_ending_only_in_the_middle",
    lambda: {"a.parquet": good(1), "b.parquet.old": good(9), "c.jsonl.2023": jsonl(docs(8))},
    texts=ts(1),
    unknown=("b.parquet.old", "c.jsonl.2023"),
    why="The ending decides, not a part of the name.",
)

# ---------------------------------------------------------------- published corpora

case(
    "dolma_shard",
    lambda: {
        "v1_7/cc_en_head/cc_en_head-0000.json.gz": gz(
            jsonl(
                {
                    "id": f"http://h/{i}",
                    "text": t(i),
                    "source": "common-crawl",
                    "added": "2024-04-01T00:00:00Z",
                    "created": "2020-01-01T00:00:00Z",
                    "metadata": {"sa_gopher": [[0, 5, 0.1]], "lang": {"en": 0.98}},
                }
                for i in (1, 2)
            )
        ),
        "v1_7/pes2o/pes2o-0000.json.gz": gz(
            jsonl(
                [
                    {
                        "id": "77",
                        "text": t(3),
                        "source": "s2",
                        "version": "v3",
                        "metadata": {"year": 2015, "sha1": None},
                    }
                ]
            )
        ),
    },
    settings={"source_column": "source"},
    texts=ts(1, 2, 3),
    sources=["common-crawl", "common-crawl", "s2"],
    why="Dolma: JSON Lines in .json.gz with a source of each row.",
)
case(
    "c4_shard",
    lambda: {
        "en/c4-train.00000-of-01024.json.gz": gz(
            jsonl(
                {"text": t(i), "timestamp": "2019-04-25T12:57:54Z", "url": f"https://example.org/{i}"}
                for i in (1, 2, 3)
            )
        )
    },
    texts=ts(1, 2, 3),
    why="C4's shards are JSON Lines although their ending is .json.gz.",
)
case(
    "pile_shard_with_source_by_path",
    lambda: {
        "train/00.jsonl.zst": zst(
            jsonl(
                [
                    {"text": t(1), "meta": {"pile_set_name": "Pile-CC"}},
                    {"text": t(2), "meta": {"pile_set_name": "USPTO Backgrounds"}},
                ]
            )
        )
    },
    settings={"source_column": "meta.pile_set_name"},
    texts=ts(1, 2),
    sources=["Pile-CC", "USPTO Backgrounds"],
    why="The Pile names its parts in a nested field.",
)
case(
    "slimpajama_shards",
    lambda: {
        f"train/chunk{c}/example_train_{k}.jsonl.zst": zst(
            jsonl(
                [
                    {
                        "text": t(10 * c + k),
                        "meta": {"redpajama_set_name": "RedPajamaC4" if k else "RedPajamaArXiv"},
                        "__index_level_0__": 5,
                    }
                ]
            )
        )
        for c in (1, 2)
        for k in (0, 1)
    },
    settings={"source_column": "meta.redpajama_set_name"},
    texts=ts(10, 11, 20, 21),
    sources=["RedPajamaArXiv", "RedPajamaC4"] * 2,
    why="SlimPajama's chunks and nested set name.",
)
case(
    "redpajama_v2_raw_content",
    lambda: {
        "2023-06/0000/en_head.json.gz": gz(
            jsonl(
                {
                    "url": f"http://h/{i}",
                    "date_download": "2023-02-01",
                    "digest": f"sha1:{i}",
                    "length": 90,
                    "nlines": 1,
                    "source_domain": "h.example",
                    "raw_content": t(i),
                    "cc_segment": "crawl-data/x",
                    "language": "en",
                    "perplexity": 210.5,
                    "bucket": "head",
                }
                for i in (4, 5)
            )
        )
    },
    settings={"text_columns": ["raw_content"], "source_column": "source_domain"},
    texts=ts(4, 5),
    sources=["h.example", "h.example"],
    why="RedPajama-V2 keeps the text under raw_content.",
)
case(
    "redpajama_1t_meta_of_changing_shape",
    lambda: {
        "arxiv_0.jsonl": jsonl(
            [
                {"text": t(1), "meta": {"timestamp": "2021", "yymm": "2103", "arxiv_id": "2103.1"}},
                {"text": t(2), "meta": {"url": "http://h", "language": "en"}},
                {"text": t(3), "meta": "{'short_book_title': 'A'}"},
                {"text": t(4), "meta": None},
            ]
        )
    },
    texts=ts(1, 2, 3, 4),
    why="What is not the text may change its shape from row to row.",
)
case(
    "dclm_shard",
    lambda: {
        "global-shard_01_of_10/local-shard_0_of_10/shard_00000000_processed.jsonl.zst": zst(
            jsonl(
                {
                    "bff_contained_ngram_count_before_dedupe": 3,
                    "language_id_whole_page_fasttext": {"en": 0.93},
                    "metadata": {"WARC-Type": "response", "Content-Length": "812"},
                    "previous_word_count": 99,
                    "text": t(i),
                    "url": f"http://h/{i}",
                    "warcinfo": "robots: classic\r\nhostname: x",
                    "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob": 0.05,
                }
                for i in (1, 2)
            )
        )
    },
    texts=ts(1, 2),
    why="DCLM as published.",
)
case(
    "fineweb_parquet",
    lambda: {
        "CC-MAIN-2024-10/000_00000.parquet": parquet(
            [
                {
                    "text": t(i),
                    "id": f"<urn:uuid:{i}>",
                    "dump": "CC-MAIN-2024-10",
                    "url": f"http://h/{i}",
                    "date": "2024-02-20T00:00:00Z",
                    "file_path": "s3://commoncrawl/x",
                    "language": "en",
                    "language_score": 0.97,
                    "token_count": 40,
                }
                for i in range(5)
            ]
        )
    },
    settings={"source_column": "dump"},
    texts=ts(0, 1, 2, 3, 4),
    sources=["CC-MAIN-2024-10"] * 5,
    why="FineWeb's columns.",
)
case(
    "oscar_nested_headers_with_hyphens",
    lambda: {
        "de_part_1.jsonl.gz": gz(
            jsonl(
                {
                    "content": t(i),
                    "warc_headers": {
                        "warc-identified-content-language": "deu",
                        "warc-target-uri": f"http://h/{i}",
                    },
                    "metadata": {
                        "identification": {"label": "de", "prob": 0.9},
                        "annotation": None,
                        "sentence_identifications": [None, {"label": "de", "prob": 0.8}],
                    },
                }
                for i in (1, 2)
            )
        )
    },
    settings={"text_columns": ["content"], "source_column": "warc_headers.warc-identified-content-language"},
    texts=ts(1, 2),
    sources=["deu", "deu"],
    why="OSCAR's header names hold hyphens, which mean nothing in a path.",
)
case(
    "the_stack_content_and_folder_of_language",
    lambda: {
        "data/python/train-00000-of-00002.parquet": parquet(
            [
                {
                    "hexsha": "ab",
                    "size": 20,
                    "ext": "py",
                    "lang": "Python",
                    "content": "def lift(boat):\n\treturn boat + 1\n\nprint(lift(2))",
                    "max_stars_count": None,
                }
            ]
        )
    },
    settings={"text_columns": ["content"], "source_column": "lang"},
    texts=["def lift(boat):\n\treturn boat + 1\n\nprint(lift(2))"],
    sources=["Python"],
    why="Code keeps its tabs and line ends; data/python is no partition.",
)
case(
    "webtext_json_array_pretty",
    lambda: {"pages.json": array([{"title": "A", "text": t(1)}, {"title": "B", "text": t(2)}])},
    texts=ts(1, 2),
    why="A .json may be one array of objects over many lines.",
)
case(
    "json_array_on_one_line_compressed",
    lambda: {
        "a.json.gz": gz(array(docs(1, 2), None)),
        "b.json.zst": zst(array(docs(3), None)),
        "c.json": array([], None),
        "d.json": b"\n  " + array(docs(4, 5), None) + b"\n\n",
    },
    texts=ts(1, 2, 3, 4, 5),
    why="One array in .json is read, on one line too; an empty array holds no rows.",
)

# ---------------------------------------------------------------- JSON Lines as text files

case(
    "jsonl_byte_order_mark",
    lambda: {
        "a.jsonl": codecs.BOM_UTF8 + jsonl(docs(1, 2)),
        "b.json": codecs.BOM_UTF8 + array(docs(3)),
        "c.jsonl.gz": gz(codecs.BOM_UTF8 + jsonl(docs(4))),
    },
    texts=ts(1, 2, 3, 4),
    why="A UTF-8 byte order mark is not part of the first row.",
)
case(
    "jsonl_crlf_blank_lines_no_last_line_end",
    lambda: {
        "a.jsonl": (
            "\r\n"
            + "\r\n".join([line(d) for d in docs(1, 2)])
            + "\r\n\r\n   \r\n\t"
            + line(docs(3)[0])
            + "  \r\n"
            + line(docs(4)[0])
        ).encode()
    },
    texts=ts(1, 2, 3, 4),
    why="CRLF, blank lines, white space around a row and a missing last line end are all JSON Lines in practice.",
)
case(
    "jsonl_unicode_line_separators_do_not_end_rows",
    lambda: {"a.jsonl": jsonl([{"text": "One\u2028two\u2029three\u0085four."}, {"text": t(2)}])},
    texts=["One\u2028two\u2029three\u0085four.", t(2)],
    why="Only the line feed ends a row; U+2028, U+2029 and U+0085 may stand unescaped in a JSON string.",
)
case(
    "jsonl_escapes_and_surrogate_pairs",
    lambda: {
        "a.jsonl": b'{"text": "Gr\\u00fc\\u00dfe \\ud83d\\ude00 \\u65e5\\u672c \\"quoted\\" back\\\\slash tab\\there line\\nend \\/ slash"}\n'
        + jsonl(docs(2))
    },
    texts=['Grüße 😀 日本 "quoted" back\\slash tab\there line\nend / slash', t(2)],
    why="ASCII-only writers escape everything; the text is the decoded one.",
)
case(
    "jsonl_integers_beyond_64_bits_and_long_floats",
    lambda: {
        "a.jsonl": b'{"hash": 340282366920938463463374607431768211455, "text": '
        + json.dumps(t(1)).encode()
        + b'}\n{"hash": -9223372036854775809, "text": '
        + json.dumps(t(2)).encode()
        + b'}\n{"hash": 0.1234567890123456789012345678901234567890, "text": '
        + json.dumps(t(3)).encode()
        + b"}\n"
    },
    texts=ts(1, 2, 3),
    why="128-bit hashes beside the text are valid JSON and no reason to lose it.",
)
case(
    "jsonl_float_beyond_doubles",
    lambda: {
        "a.jsonl": b'{"p": 1e400, "q": -1E-500, "text": '
        + json.dumps(t(1)).encode()
        + b"}\n"
        + jsonl(docs(2))
    },
    texts=ts(1, 2),
    why="RFC 8259 sets no range of numbers; a score that no double holds stands beside a sound text.",
)
case(
    "jsonl_duplicate_key_beside_the_text",
    lambda: {
        "a.jsonl": b'{"id": 1, "id": "1", "meta": {"a": 1, "a": 2}, "text": '
        + json.dumps(t(1)).encode()
        + b"}\n"
        + jsonl(docs(2))
    },
    texts=ts(1, 2),
    why="A key that stands twice beside the text does not touch the text.",
)
case(
    "jsonl_mixed_types_beside_the_text",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"id": 1, "text": t(1), "tags": []},
                {"id": "two", "text": t(2), "tags": ["x"]},
                {"id": None, "tags": {"k": 1}, "text": t(3)},
                {"text": t(4), "id": 4.5, "tags": "x,y"},
                {"id": True, "text": t(5), "new": [[1], ["a"]]},
            ]
        )
    },
    texts=ts(1, 2, 3, 4, 5),
    why="JSON has no schema; only the text must be text.",
)
case(
    "jsonl_new_column_late_in_the_file",
    lambda: {
        "a.jsonl": jsonl(
            [
                *docs(*range(300)),
                {"text": t(300), "late": {"deep": [1, {"x": "y"}]}},
                *({"text": t(i), "id": i} for i in range(301, 320)),
            ]
        )
    },
    texts=ts(*range(320)),
    why="A type seen first in row 300 is no reason to fail.",
)
case(
    "jsonl_first_row_of_another_form",
    lambda: {"a.jsonl": jsonl([{"error": "timeout"}, *docs(1, 2, 3)])},
    settings=ALL,
    texts=[None, *ts(1, 2, 3)],
    why="An object of another form in row 0 costs itself only.",
)
case(
    "jsonl_broken_rows_cost_themselves",
    lambda: {
        "a.jsonl": jsonl(docs(1))
        + b'{"id": 2, "text": "cut in the mid\n'
        + jsonl(docs(3))
        + line(docs(4)[0]).encode()
        + b',\n[1, 2]\n"only a string"\n42\nnull\n'
        + jsonl(docs(5))
    },
    settings=ALL,
    texts=[t(1), None, t(3), None, None, None, None, None, t(5)],
    why="Each line that is not one JSON object is quarantined; the rows around it are read.",
)
case(
    "jsonl_text_of_wrong_type_or_missing",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"text": t(1)},
                {"text": None},
                {"text": 5},
                {"text": ["a", "b"]},
                {"text": {"en": "a"}},
                {"id": 9},
                {"text": True},
                {"text": t(2)},
            ]
        )
    },
    settings=ALL,
    texts=[t(1), None, None, None, None, None, None, t(2)],
    why="Nothing but a string is a text.",
)
case(
    "jsonl_empty_blank_and_zero_width_texts",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"text": t(1)},
                {"text": ""},
                {"text": " \t\r\n "},
                {"text": "\u200b\u200d\u2060\ufeff"},
                {"text": "\u00a0\u3000\u2003"},
                {"text": " \u200b \ufeff\n"},
                {"text": t(2)},
            ]
        )
    },
    settings=ALL,
    texts=[t(1), None, None, None, None, None, t(2)],
    why="White space and zero-width characters alone are no text.",
)
case(
    "jsonl_zero_width_inside_words_is_kept",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"text": "می\u200cخواهم کتاب بخوانم"},
                {"text": "family 👨\u200d👩\u200d👧 on the quay"},
                {"text": "re\u0301sume\u0301 and résumé"},
            ]
        )
    },
    texts=[
        "می\u200cخواهم کتاب بخوانم",
        "family 👨\u200d👩\u200d👧 on the quay",
        "re\u0301sume\u0301 and résumé",
    ],
    why="Joiners belong to Persian words and to emoji; normal forms are the author's.",
)
case(
    "jsonl_invalid_utf8_in_one_row",
    lambda: {"a.jsonl": jsonl(docs(1)) + b'{"text": "Stra\xdfe in Latin-1"}\n' + jsonl(docs(2))},
    settings=ALL,
    texts=[t(1), None, t(2)],
    why="One row in another encoding is a damaged row, not a damaged file.",
)
case(
    "jsonl_truncated_last_row",
    lambda: {"a.jsonl": jsonl(docs(1, 2)) + b'{"id": "doc-3", "text": "The copy ended he'},
    settings=ALL,
    texts=[t(1), t(2), None],
    why="A row cut at the file's end is told, not dropped.",
)
case(
    "jsonl_long_row_of_one_megabyte",
    lambda: {"a.jsonl": jsonl([{"text": t(1)}, {"text": (t(2) + " ") * 12000 + "End."}, {"text": t(3)}])},
    texts=[t(1), (t(2) + " ") * 12000 + "End.", t(3)],
    why="A whole book in one row is ordinary (PG-19); blocks of readers are often smaller.",
)
case(
    "json_array_with_a_stranger_in_it",
    lambda: {"a.json": array([{"text": t(1)}, 17, {"text": t(2)}, None, {"title": "no text"}])},
    settings=ALL,
    texts=[t(1), None, t(2), None, None],
    why="Elements of an array are rows; one that is no object costs itself.",
)
case(
    "budget_one_bad_row_of_two_hundred_passes",
    lambda: {"a.jsonl": jsonl([*docs(*range(100)), {"text": ""}, *docs(*range(101, 200))])},
    texts=[*ts(*range(100)), None, *ts(*range(101, 200))],
    why="Half a percent is below the default budget of one percent.",
)
case(
    "budget_ten_bad_rows_of_hundred_refused",
    lambda: {
        "good.jsonl": jsonl(docs(1, 2, 3)),
        "worn.jsonl": jsonl([{"text": ""} if i % 10 == 0 else {"text": t(i)} for i in range(100)]),
    },
    refused=("worn.jsonl",),
    why="Ten percent is above the budget of one percent; the shard is named.",
)
case(
    "zero_width_rows_only_refused_whatever_the_budget",
    lambda: {
        "good.parquet": good(1, 2),
        "thin.parquet": parquet([{"text": "\u200b"}, {"text": "\ufeff\u200b"}]),
    },
    settings=ALL,
    refused=("thin.parquet",),
    why="A file without one usable row is refused whatever the budget.",
)

# ---------------------------------------------------------------- file-level mistakes

case(
    "mistake_utf16_with_mark",
    lambda: {"a.jsonl": jsonl(docs(1)), "wide.jsonl": jsonl(docs(2, 3)).decode().encode("utf-16")},
    settings=ALL,
    refused=("wide.jsonl", "utf-16"),
    why="UTF-16 is a mistake of the file, told as one.",
)
case(
    "mistake_utf16_in_csv",
    lambda: {"excel.csv": csv_bytes([["id", "text"], ["1", t(1)]]).decode().encode("utf-16")},
    settings=ALL,
    refused=("excel.csv", "utf-16"),
    why="Excel's 'Unicode text' is UTF-16.",
)
case(
    "mistake_gzip_named_as_plain",
    lambda: {"a.jsonl": jsonl(docs(1)), "packed.jsonl": gz(jsonl(docs(2, 3)))},
    settings=ALL,
    refused=("packed.jsonl", "gzip"),
    why="gzip without its ending is told as that.",
)
case(
    "mistake_plain_named_as_gzip",
    lambda: {"open.jsonl.gz": jsonl(docs(2, 3))},
    settings=ALL,
    refused=("open.jsonl.gz",),
    why="A client that unpacked on the way leaves plain text under .gz.",
)
case(
    "mistake_gzip_cut_short",
    lambda: {"a.jsonl.gz": gz(jsonl(docs(1, 2))), "cut.jsonl.gz": gz(jsonl(docs(*range(3, 60))))[:-40]},
    settings=ALL,
    refused=("cut.jsonl.gz",),
    why="A stream without its end has lost rows, and nobody knows how many.",
)
case(
    "mistake_zstd_cut_short",
    lambda: {"cut.jsonl.zst": zst(jsonl(docs(*range(3, 200))))[:-60]},
    settings=ALL,
    refused=("cut.jsonl.zst",),
    why="As for gzip.",
)
case(
    "mistake_second_gzip_member_cut_short",
    lambda: {"cut.jsonl.gz": gz(jsonl(docs(1, 2))) + gz(jsonl(docs(*range(3, 60))))[:-40]},
    settings=ALL,
    refused=("cut.jsonl.gz",),
    why="The rows of the first member do not excuse the second.",
)
case(
    "mistake_gzip_checksum_wrong",
    lambda: {"flip.jsonl.gz": _flip_crc(gz(jsonl(docs(1, 2, 3))))},
    settings=ALL,
    refused=("flip.jsonl.gz",),
    why="The stream's checksum says that its bytes are not the written ones.",
)


def _flip_crc(data: bytes) -> bytes:
    return data[:-8] + bytes([data[-8] ^ 0xFF]) + data[-7:]


case(
    "mistake_empty_jsonl_gz",
    lambda: {"a.jsonl.gz": gz(jsonl(docs(1))), "void.jsonl.gz": b""},
    settings=ALL,
    refused=("void.jsonl.gz",),
    why="No bytes are not a gzip stream: an upload that failed.",
)
case(
    "mistake_array_in_jsonl",
    lambda: {"list.jsonl": array(docs(1, 2, 3))},
    settings=ALL,
    refused=("list.jsonl", "array"),
    why="One array is not JSON Lines; the message says so.",
)
case(
    "mistake_lfs_pointer_parquet",
    lambda: {"a.parquet": good(1), "b.parquet": LFS},
    settings=ALL,
    refused=("b.parquet", "lfs"),
    why="A clone without git-lfs leaves pointers.",
)
case(
    "mistake_lfs_pointer_jsonl_gz",
    lambda: {"b.jsonl.gz": LFS},
    settings=ALL,
    refused=("b.jsonl.gz", "lfs"),
    why="A clone without git-lfs leaves pointers.",
)
case(
    "mistake_lfs_pointer_jsonl",
    lambda: {"a.jsonl": jsonl(docs(1, 2)), "b.jsonl": LFS},
    settings=ALL,
    refused=("b.jsonl", "lfs"),
    why="A pointer is three lines that are no JSON, but the mistake is the file's.",
)
case(
    "mistake_error_page_as_jsonl",
    lambda: {"a.jsonl": jsonl(docs(1)), "page.jsonl": HTML},
    settings=ALL,
    refused=("page.jsonl",),
    why="A gateway's page was saved for a shard: no row is usable.",
)
case(
    "mistake_error_page_as_parquet",
    lambda: {"a.parquet": good(1), "page.parquet": HTML},
    settings=ALL,
    refused=("page.parquet",),
    why="The same for Parquet.",
)
case(
    "mistake_jsonl_named_parquet",
    lambda: {"a.parquet": good(1), "turned.parquet": jsonl(docs(2))},
    settings=ALL,
    refused=("turned.parquet",),
    why="Another format under the name of Parquet.",
)
case(
    "mistake_parquet_named_jsonl",
    lambda: {"a.jsonl": jsonl(docs(1)), "turned.jsonl": good(2)},
    settings=ALL,
    refused=("turned.jsonl", "parquet"),
    why="Another format under the name of JSON Lines, and its magic says which.",
)
case(
    "mistake_parquet_without_footer",
    lambda: {"a.parquet": good(1), "cut.parquet": parquet(docs(*range(200)))[:-30]},
    settings=ALL,
    refused=("cut.parquet",),
    why="A Parquet file without its footer cannot be read.",
)
case(
    "mistake_parquet_page_checksum",
    lambda: {"a.parquet": good(1), "rot.parquet": _rot(docs(2, 3, 4))},
    settings=ALL,
    refused=("rot.parquet",),
    why="Page checksums are verified: one letter changed under way.",
)


def _rot(rows: list[dict]) -> bytes:
    data = parquet(
        rows, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
    )
    letter = rows[1]["text"].encode()
    assert data.count(letter) == 1
    return data.replace(letter, b"X" + letter[1:])


case(
    "mistake_column_missing_in_one_shard",
    lambda: {"a.parquet": good(1, 2), "b.parquet": parquet([{"id": "x", "content": t(3)}])},
    settings=ALL,
    refused=("b.parquet", "text"),
    why="The shard and the column that it lacks are named.",
)
case(
    "mistake_other_key_in_all_rows_of_jsonl",
    lambda: {"a.jsonl": jsonl({"id": i, "content": t(i)} for i in range(5))},
    settings=ALL,
    refused=("a.jsonl", "content"),
    why="The keys that were seen are quoted.",
)
case(
    "mistake_binary_text_column",
    lambda: {"a.parquet": parquet(pa.table({"text": pa.array([t(1).encode(), t(2).encode()], pa.binary())}))},
    refused=("a.parquet", "binary"),
    why="Bytes have no stated encoding; a remedy is told.",
)
case(
    "mistake_text_column_is_a_number",
    lambda: {"a.parquet": parquet(pa.table({"text": pa.array([1, 2], pa.int64())}))},
    refused=("a.parquet", "text", "int64"),
    why="The type is quoted.",
)
case(
    "mistake_text_column_is_a_list",
    lambda: {"a.parquet": parquet(pa.table({"text": pa.array([["a", "b"]], pa.list_(pa.string()))}))},
    refused=("a.parquet", "text", "list"),
    why="A list is not a text; text[0] would be.",
)
case(
    "mistake_two_columns_named_text",
    lambda: {
        "a.parquet": parquet(
            pa.Table.from_arrays([pa.array([t(1)]), pa.array([t(2)])], names=["text", "text"])
        )
    },
    refused=("a.parquet", "text"),
    why="Which of the two is meant cannot be known.",
)
case(
    "mistake_nested_path_missing",
    lambda: {"a.parquet": parquet([{"meta": {"title": "A"}, "text": t(1)}])},
    settings={"text_columns": ["meta.body"]},
    refused=("a.parquet", "meta.body"),
    why="The path as configured is named.",
)

# ---------------------------------------------------------------- Parquet and Arrow: types and paths


def _typed() -> pa.Table:
    return pa.table(
        {
            "text": pa.array(ts(1, 2), pa.large_string()),
            "nothing": pa.nulls(2),
            "when": pa.array([0, 1], pa.timestamp("ns", "UTC")),
            "price": pa.array([None, None], pa.decimal128(20, 3)),
            "half": pa.array([None, None], pa.float16()),
            "raw": pa.array([b"\xff\xfe", None], pa.binary(2)),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
            "vec": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        }
    )


case(
    "parquet_columns_of_every_type_beside_the_text",
    lambda: {"a.parquet": parquet(_typed())},
    texts=ts(1, 2),
    why="Types of other columns do not matter.",
)
case(
    "parquet_text_as_dictionary_large_and_view",
    lambda: {
        "a.parquet": parquet(pa.table({"text": pa.array(ts(1, 2, 1), pa.string()).dictionary_encode()})),
        "b.parquet": parquet(pa.table({"text": pa.array(ts(3), pa.large_string())})),
        "c.parquet": parquet(pa.table({"text": pa.array(ts(4), pa.string_view())})),
    },
    texts=ts(1, 2, 1, 3, 4),
    why="All are texts to Parquet; shards may differ in it.",
)
case(
    "parquet_other_columns_differ_between_shards",
    lambda: {
        "a.parquet": parquet([{"text": t(1), "score": 1}]),
        "b.parquet": parquet([{"score": "high", "text": t(2), "more": [1]}]),
        "c.parquet": parquet([{"text": t(3)}]),
    },
    texts=ts(1, 2, 3),
    why="Only the text's column must agree.",
)
case(
    "parquet_names_differ_in_case_only",
    lambda: {"a.parquet": parquet([{"Text": "not this one", "TEXT": "nor this one", "text": t(1)}])},
    texts=ts(1),
    why="Column names are taken exactly.",
)
case(
    "parquet_shard_without_rows",
    lambda: {
        "a.parquet": good(1),
        "b.parquet": parquet(pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})),
        "c.parquet": good(2),
    },
    texts=ts(1, 2),
    why="Spark writes shards without rows; they hold nothing and are no mistake.",
)
case(
    "parquet_nulls_and_blanks_among_texts",
    lambda: {"a.parquet": parquet(pa.table({"text": [t(1), None, "", "  \n", t(2)]}))},
    settings=ALL,
    texts=[t(1), None, None, None, t(2)],
    why="Null and blank are quarantined, each by itself.",
)
case(
    "parquet_many_row_groups_pages_and_encodings",
    lambda: {
        "a.parquet": parquet(
            docs(*range(60)),
            row_group_size=7,
            data_page_size=64,
            compression="brotli",
            data_page_version="2.0",
            write_page_checksum=True,
        ),
        "b.parquet": parquet(
            docs(60, 61, 62),
            use_dictionary=False,
            column_encoding={"text": "DELTA_BYTE_ARRAY", "id": "DELTA_LENGTH_BYTE_ARRAY"},
            version="1.0",
        ),
    },
    texts=ts(*range(63)),
    why="Every encoding that a writer may choose; sound checksums pass.",
)
case(
    "parquet_json_extension_column_beside_the_text",
    lambda: {
        "duck.parquet": parquet(
            pa.table({"text": pa.array(ts(1, 2)), "meta": pa.nulls(2)}).set_column(
                1,
                "meta",
                pa.ExtensionArray.from_storage(
                    pa.json_(pa.string()), pa.array(['{"a": 1}', None], pa.string())
                ),
            )
        )
    },
    texts=ts(1, 2),
    why="DuckDB writes JSON columns as Arrow's extension type; plan and embed must both take the file.",
)
case(
    "parquet_uuid_bool8_and_foreign_extension_columns",
    lambda: {
        "ext.parquet": parquet(
            pa.table(
                [
                    pa.ExtensionArray.from_storage(
                        pa.uuid(), pa.array([b"0123456789abcdef", b"fedcba9876543210"], pa.binary(16))
                    ),
                    pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
                    pa.array([b"\x01", b"\x02"], pa.binary()),
                    pa.array(ts(1, 2), pa.string()),
                ],
                schema=pa.schema(
                    [
                        pa.field("uid", pa.uuid()),
                        pa.field("flag", pa.bool8()),
                        pa.field(
                            "geometry",
                            pa.binary(),
                            metadata={
                                "ARROW:extension:name": "geoarrow.wkb",
                                "ARROW:extension:metadata": "{}",
                            },
                        ),
                        pa.field(
                            "text",
                            pa.string(),
                            metadata={"ARROW:extension:name": "acme.prose", "ARROW:extension:metadata": ""},
                        ),
                    ]
                ),
            )
        )
    },
    texts=ts(1, 2),
    why="An unknown extension is its storage, and the text's storage is a string.",
)
case(
    "dotted_name_in_backquotes",
    lambda: {
        "a.parquet": parquet([{"meta.text": t(1), "meta": {"text": "nested, not meant"}}]),
        "b.jsonl": jsonl([{"meta.text": t(2), "meta": {"text": "nested, not meant"}}]),
    },
    settings={"text_columns": ["`meta.text`"]},
    texts=ts(1, 2),
    why="Backquotes make one name of it, in every format.",
)
case(
    "nested_path_beside_a_dotted_name",
    lambda: {
        "a.parquet": parquet([{"meta.text": "dotted, not meant", "meta": {"text": t(1)}}]),
        "b.jsonl": jsonl([{"meta.text": "dotted, not meant", "meta": {"text": t(2)}}]),
    },
    settings={"text_columns": ["meta.text"]},
    texts=ts(1, 2),
    why="Without backquotes a dot goes one level down.",
)
case(
    "dotted_name_below_a_struct",
    lambda: {
        "a.parquet": parquet([{"doc": {"body.v2": t(1), "src.id": "s1"}}]),
        "b.jsonl": jsonl([{"doc": {"body.v2": t(2), "src.id": "s2"}}]),
    },
    settings={"text_columns": ["doc.`body.v2`"], "source_column": "doc.`src.id`"},
    texts=ts(1, 2),
    sources=["s1", "s2"],
    why="Backquotes may stand at any level of a path.",
)
case(
    "path_with_index_and_struct",
    lambda: {
        "a.parquet": parquet([{"p": [{"b": t(1)}, {"b": "second"}]}, {"p": [{"b": t(2)}]}]),
        "b.jsonl": jsonl([{"p": [{"b": t(3)}, {"b": "second"}]}]),
    },
    settings={"text_columns": ["p[0].b"]},
    texts=ts(1, 2, 3),
    why="The path a[0].b in both formats.",
)
case(
    "path_with_index_out_of_range_costs_the_row",
    lambda: {
        "a.parquet": parquet(
            [{"p": ["x", t(1)]}, {"p": ["only one"]}, {"p": []}, {"p": None}, {"p": ["y", t(2)]}]
        )
    },
    settings={"text_columns": ["p[1]"], **ALL},
    texts=[t(1), None, None, None, t(2)],
    why="A row whose list is too short has no text.",
)
case(
    "index_into_fixed_size_list",
    lambda: {
        "a.parquet": parquet(pa.table({"p": pa.array([[t(1), "x"], [t(2), "y"]], pa.list_(pa.string(), 2))})),
        "b.arrow": ipc_file(
            pa.table({"p": pa.array([["x0", "x1"], [t(3), "z"]], pa.list_(pa.string(), 2))}).slice(1)
        ),
    },
    settings={"text_columns": ["p[0]"]},
    texts=ts(1, 2, 3),
    why="[0] works on lists of fixed size, on a slice of one too.",
)
case(
    "index_into_list_view",
    lambda: {
        "a.arrow": ipc_file(
            pa.table(
                {
                    "p": pa.array([[t(1), "x"], [t(2)]], pa.list_view(pa.string())),
                    "q": pa.array([["a"], []], pa.large_list_view(pa.string())),
                }
            )
        )
    },
    settings={"text_columns": ["p[0]"]},
    texts=ts(1, 2),
    why="[0] works on list views.",
)
case(
    "column_name_with_space_and_umlaut",
    lambda: {
        "a.parquet": parquet([{"Text Körper": t(1)}]),
        "b.csv": csv_bytes([["nr", "Text Körper"], ["1", t(2)]]),
    },
    settings={"text_columns": ["Text Körper"]},
    texts=ts(1, 2),
    why="Only dot, bracket and backquote have a meaning in a path.",
)
case(
    "struct_null_above_the_text",
    lambda: {
        "a.parquet": parquet(
            pa.table(
                {
                    "doc": pa.array(
                        [{"body": t(1)}, None, {"body": None}, {"body": t(2)}],
                        pa.struct([("body", pa.string())]),
                    )
                }
            )
        )
    },
    settings={"text_columns": ["doc.body"], **ALL},
    texts=[t(1), None, None, t(2)],
    why="A null parent is a null text.",
)

# ---------------------------------------------------------------- hive partitions

case(
    "hive_key_as_source",
    lambda: {"lang=de/part-0.parquet": good(1, 2), "lang=en/part-0.parquet": good(3)},
    settings={"source_column": "lang"},
    texts=ts(1, 2, 3),
    sources=["de", "de", "en"],
    why="A partition's key stands for a column that the file lacks.",
)
case(
    "hive_keys_of_two_levels_with_json_lines",
    lambda: {"lang=de/year=2023/a.jsonl": jsonl(docs(1)), "lang=de/year=2024/a.jsonl.gz": gz(jsonl(docs(2)))},
    settings={"source_column": "year"},
    texts=ts(1, 2),
    sources=["2023", "2024"],
    why="Any level, any format; a key's value is a text.",
)
case(
    "hive_key_and_column_of_the_file",
    lambda: {
        "lang=de/part-0.parquet": parquet([{"text": t(1), "lang": "de-AT"}]),
        "lang=fr/part-0.parquet": parquet([{"text": t(2)}]),
    },
    settings={"source_column": "lang"},
    texts=ts(1, 2),
    sources=["de-AT", "fr"],
    why="The file's own column goes before the key of its folder.",
)
case(
    "hive_folders_without_source_column",
    lambda: {
        "dump=CC-MAIN-2023-50/shard=0/p.parquet": good(1),
        "dump=CC-MAIN-2024-10/shard=1/p.parquet": good(2),
    },
    texts=ts(1, 2),
    why="Partitions that nobody asks for do no harm.",
)

# ---------------------------------------------------------------- CSV and TSV

case(
    "csv_quotes_commas_and_line_ends",
    lambda: {
        "a.csv": b'id,text,n\n1,"One, two\nand ""three"" lines",x\n2,'
        + t(2).replace(",", "").encode()
        + b",y\n"
    },
    texts=['One, two\nand "three" lines', t(2).replace(",", "")],
    why="RFC 4180: commas, doubled quotes and line ends inside quotes.",
)
case(
    "csv_crlf_mark_and_no_last_line_end",
    lambda: {
        "a.csv": codecs.BOM_UTF8
        + csv_bytes([["text", "id"], [t(1), "1"], [t(2), "2"]], end="\r\n").rstrip(b"\r\n")
    },
    texts=ts(1, 2),
    why="The mark is not part of the first column's name.",
)
case(
    "csv_texts_that_look_like_values",
    lambda: {
        "a.csv": csv_bytes(
            [
                ["id", "text"],
                ["1", "007"],
                ["2", "1e5"],
                ["3", "true"],
                ["4", "2024-01-01"],
                ["5", "NA"],
                ["6", "null"],
                ["7", "12"],
            ]
        )
    },
    texts=["007", "1e5", "true", "2024-01-01", "NA", "null", "12"],
    why="A column that is asked for as text is not typed by guessing.",
)
case(
    "csv_all_texts_are_numbers",
    lambda: {"a.csv": csv_bytes([["text"], ["00012"], ["3.140"], ["-0"]])},
    texts=["00012", "3.140", "-0"],
    why="Not even where all rows look like numbers.",
)
case(
    "csv_field_beyond_128_kib",
    lambda: {
        "a.csv": csv_bytes(
            [["id", "text"], ["1", t(1)], ["2", '"' + (t(2) + "\n") * 2600 + 'end"'], ["3", t(3)]]
        )
    },
    texts=[t(1), '"' + (t(2) + "\n") * 2600 + 'end"', t(3)],
    why="The standard library's limit of a field is not the data's.",
)
case(
    "csv_blank_lines_and_empty_cells",
    lambda: {"a.csv": b"id,text\n1," + t(1).replace(",", "").encode() + b'\n\n2,\n3,""\n4,last one\n\n'},
    settings=ALL,
    texts=[t(1).replace(",", ""), None, None, "last one"],
    why="A blank line is no row; an empty cell is no text.",
)
case(
    "csv_all_quoted_header_too",
    lambda: {
        "a.csv": csv_bytes(
            [["text", "url"], [t(1), "http://h/1"], ["Ein Satz; mit Semikolon,\tTab.", "http://h/2"]],
            quoting=csv.QUOTE_ALL,
        )
    },
    settings={"source_column": "url"},
    texts=[t(1), "Ein Satz; mit Semikolon,\tTab."],
    sources=["http://h/1", "http://h/2"],
    why="Quoting everything is a common dialect; the header is unquoted as well.",
)
case(
    "csv_compressed_and_upper_case",
    lambda: {
        "a.csv.gz": gz(csv_bytes([["text"], [t(1)]])),
        "b.CSV": csv_bytes([["text"], [t(2)]]),
        "c.csv.zst": zst(csv_bytes([["text"], [t(3)]])),
        "d.tsv.gz": gz(csv_bytes([["id", "text"], ["1", t(4)]], delimiter="\t")),
    },
    texts=ts(1, 2, 3, 4),
    why="Compressions hold for every text format.",
)
case(
    "tsv_with_quote_inside_a_field_and_commas",
    lambda: {
        "a.tsv": b'id\ttext\tn\n1\tA 5" disk, and another 3.5" disk\tx\n2\tIt\'s "only" a tab, here\ty\n'
    },
    texts=['A 5" disk, and another 3.5" disk', 'It\'s "only" a tab, here'],
    why="A quote that does not begin a field is a letter, and commas mean nothing in TSV.",
)
case(
    "csv_header_only_beside_rows",
    lambda: {"a.csv": csv_bytes([["id", "text"]]), "b.csv": csv_bytes([["id", "text"], ["1", t(1)]])},
    texts=ts(1),
    why="A header without rows is a shard without rows.",
)
case(
    "csv_without_the_column",
    lambda: {"a.csv": csv_bytes([["id", "body"], ["1", t(1)]])},
    settings=ALL,
    refused=("a.csv", "body"),
    why="The columns that were seen are quoted.",
)
case(
    "csv_without_header",
    lambda: {"a.csv": csv_bytes([["1", t(1)], ["2", t(2)], ["3", t(3)]])},
    settings=ALL,
    refused=("a.csv", "text"),
    why="Without a header no column is named text.",
)

# ---------------------------------------------------------------- Arrow IPC, tar

case(
    "arrow_stream_of_save_to_disk",
    lambda: {
        "data-00000-of-00002.arrow": ipc_stream(pa.Table.from_pylist(docs(*range(5))), rows_a_batch=2),
        "data-00001-of-00002.arrow": ipc_stream(pa.Table.from_pylist(docs(5, 6))),
    },
    texts=ts(*range(7)),
    why="datasets writes Arrow's stream format under .arrow.",
)
case(
    "arrow_folder_of_save_to_disk_with_its_state",
    lambda: {
        "train/data-00000-of-00001.arrow": ipc_stream(pa.Table.from_pylist(docs(1, 2))),
        "train/dataset_info.json": b'{\n  "citation": "",\n  "features": {"text": {"dtype": "string", "_type": "Value"}}\n}',
        "train/state.json": b'{\n  "_data_files": [{"filename": "data-00000-of-00001.arrow"}],\n  "_fingerprint": "0a"\n}',
        "dataset_dict.json": b'{"splits": ["train"]}',
    },
    texts=ts(1, 2),
    unknown=("dataset_dict.json", "train/dataset_info.json", "train/state.json"),
    why="What save_to_disk leaves beside the data is no data, and must not refuse the dump.",
)
case(
    "arrow_file_format_compressed_buffers",
    lambda: {
        "a.arrow": ipc_file(pa.Table.from_pylist(docs(1, 2)), pa.ipc.IpcWriteOptions(compression="zstd")),
        "b.arrow": ipc_file(pa.Table.from_pylist(docs(3)), pa.ipc.IpcWriteOptions(compression="lz4")),
        "c.arrow": ipc_stream(pa.table({"text": pa.array(ts(4, 4, 5)).dictionary_encode()})),
    },
    texts=ts(1, 2, 3, 4, 4, 5),
    why="File and stream format, compressed buffers and dictionaries.",
)
case(
    "arrow_stream_cut_short",
    lambda: {"a.arrow": ipc_stream(pa.Table.from_pylist(docs(*range(100))), rows_a_batch=10)[:-400]},
    settings=ALL,
    refused=("a.arrow",),
    why="A stream that ends within a batch has lost rows.",
)
case(
    "tar_of_json_members",
    lambda: {
        "shard-000000.tar": tar([(f"{i:06d}.json", line({"text": t(i), "id": i}).encode()) for i in range(3)])
    },
    texts=ts(0, 1, 2),
    why="WebDataset: one sample a key, a .json member holds its fields.",
)

# ---------------------------------------------------------------- memory


def _bomb_of_brackets() -> bytes:
    inner = b"[" + b"[]," * 8_000_000 + b"[]]"
    return gz(jsonl(docs(1)) + b'{"text": "small", "meta": ' + inner + b"}\n" + jsonl(docs(2)))


def _bomb_of_text() -> bytes:
    sink = io.BytesIO()
    with zstandard.ZstdCompressor(level=1).stream_writer(sink, closefd=False) as w:
        w.write(jsonl(docs(1)) + b'{"text": "')
        block = b"la " * 349_525
        for _ in range(600):
            w.write(block)
        w.write(b'"}\n' + jsonl(docs(2)))
    return sink.getvalue()


def _bomb_without_lines() -> bytes:
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1, mtime=0) as w:
        for _ in range(256):
            w.write(bytes(1 << 20))
    return sink.getvalue()


def _wide_neighbour() -> bytes:
    page = "<p>" + "the same page again " * 200_000
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 150, pa.int32()), pa.array([page]))
    return parquet(
        pa.table({"html": values, "text": pa.array(ts(*range(150)))}),
        compression="zstd",
        dictionary_pagesize_limit=1 << 24,
    )


case(
    "bomb_of_empty_lists_in_one_row",
    lambda: {"a.jsonl.gz": _bomb_of_brackets()},
    settings=ALL,
    texts=[t(1), None, t(2)],
    why="24 MB of brackets from 23 KB would become hundreds of MB of objects: the row is refused, its neighbours are read.",
)
case(
    "bomb_of_one_text_in_one_row",
    lambda: {"a.jsonl.zst": _bomb_of_text()},
    settings=ALL,
    texts=[t(1), None, t(2)],
    why="600 MB in one row from a few KB: refused by the bound, its neighbours are read.",
)
case(
    "bomb_of_zeros_without_a_line_end",
    lambda: {"zeros.jsonl.gz": _bomb_without_lines()},
    settings=ALL,
    refused=("zeros.jsonl.gz",),
    why="No line, no row: the file is refused, within bounded memory.",
)
case(
    "wide_neighbour_column_is_not_read",
    lambda: {"a.parquet": _wide_neighbour()},
    texts=ts(*range(150)),
    why="600 MB that a column beside the text claims need not be read.",
)
case(
    "many_tiny_shards",
    lambda: {
        f"{i % 10}/p-{i // 10:03d}.jsonl": jsonl([{"text": t(1000 * (i % 10) + i // 10)}]) for i in range(300)
    },
    texts=[t(1000 * a + b) for a in range(10) for b in range(30)],
    why="One row a shard is slow but valid.",
)
case(
    "shards_with_one_row_and_without_line_end",
    lambda: {
        "a.jsonl": line(docs(1)[0]).encode(),
        "b.json": line(docs(2)[0]).encode(),
        "c.jsonl.gz": gz(line(docs(3)[0]).encode()),
    },
    texts=ts(1, 2, 3),
    why="One object without a line end is one row, in .json too.",
)
