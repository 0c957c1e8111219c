"""One index of many shards: the same whatever their order, exact or of lists; damage is named."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, indexed, manifest, vectors
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index import build, lists, places, quantiser
from aitp_tasks.vector_index.build import Shard
from aitp_tasks.vector_index.library import Quantiser
from aitp_tasks.vector_index.lists import Encoded, Encoder
from aitp_tasks.vector_index.opened import OpenIndex
from aitp_tasks.vector_index.places import Places
from tests.aitp_tasks.vector_index.conftest import MakeShard, texts_of, vector

SHARDS = 4
DISTINCT = sorted({text for shard in range(SHARDS) for text in texts_of(shard)})
ROWS = sum(len(texts_of(shard)) for shard in range(SHARDS))
KINDS = pytest.mark.parametrize("kind", ["flat", "inverted_lists"])


def trained(storage: Storage, shards: list[Shard], count: int = 32) -> Quantiser:
    chunks = [key for shard in shards for key in shard.chunks]
    return quantiser.load(storage, quantiser.ensure(storage, "index/e/quantiser-corpus", count, chunks))


def built(storage: Storage, shards: list[Shard], kind: str = "flat") -> Manifest:
    made_by = trained(storage, shards) if kind == "inverted_lists" else None
    return build.build(storage, "index/e/news", "news", shards, made_by)


def opened_index(storage: Storage, done: Manifest, few_queries: bool = False) -> OpenIndex:
    return OpenIndex(storage, indexed.outputs("corpus", done), "corpus", few_queries=few_queries)


@pytest.fixture
def shards(make_shard: MakeShard) -> list[Shard]:
    return [make_shard(number) for number in range(SHARDS)]


@KINDS
def test_every_document_is_found_once_and_lies_where_its_place_says(
    storage: Storage, shards: list[Shard], kind: str
) -> None:
    done = built(storage, shards, kind)
    assert done.figures["kind"] == kind
    counts = {name: done.figures[name] for name in ("rows", "documents", "repeated", "collisions")}
    assert counts == {
        "rows": ROWS,
        "documents": len(DISTINCT),
        "repeated": ROWS - len(DISTINCT),
        "collisions": 0,
    }
    with opened_index(storage, done) as index:
        similarities, ids = index.search(np.stack([vector(text) for text in DISTINCT]), 1)
        found = index.places(ids[:, 0]).to_pylist()
    assert similarities.min() > 0.97
    assert [place["doc_id"] for place in found] == [digest.of_text(text) for text in DISTINCT]
    for text, place in zip(DISTINCT, found, strict=True):
        number = int(place["shard"].rpartition("/")[2].removesuffix(".parquet"))
        assert (texts_of(number)[place["row"]], place["source"], place["etag"]) == (text, "news", "e")


@KINDS
def test_few_queries_find_the_same_without_a_copy_of_the_lists(
    storage: Storage, shards: list[Shard], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = built(storage, shards, kind)
    queries = np.stack([vector(text) for text in DISTINCT[:20]])
    with opened_index(storage, done) as index:
        expected = index.search(queries, 7)
    monkeypatch.setattr(storage, "download", None)
    with opened_index(storage, done, few_queries=True) as index:
        assert index.dimension == queries.shape[1]
        for whole, ranged in zip(expected, index.search(queries, 7), strict=True):
            assert whole.tobytes() == ranged.tobytes()
        assert len(index.places(expected[1].ravel())) == 140


@KINDS
def test_the_order_of_shards_changes_no_byte(storage: Storage, shards: list[Shard], kind: str) -> None:
    done = built(storage, shards, kind)
    first = {name: storage.read(key) for name, key in done.outputs.items()}
    removed(storage, done)
    again = built(storage, [shards[number] for number in (2, 0, 3, 1)], kind)
    assert {name: storage.read(key) for name, key in again.outputs.items()} == first


def removed(storage: Storage, done: Manifest) -> None:
    """Make storage forget what was built."""
    folder = done.output("index").rpartition("/")[0]
    (path,) = [info.key for info in storage.list(f"{folder}.json")]
    storage._path(path).unlink()  # type: ignore[attr-defined]


def test_lists_find_what_an_exact_index_finds(storage: Storage, shards: list[Shard]) -> None:
    queries = np.stack([vector(f"c{row % 9} query {row}") for row in range(200)])
    with opened_index(storage, built(storage, shards)) as flat:
        exact, _ = flat.search(queries, 10)
    with opened_index(storage, built(storage, shards, "inverted_lists")) as index:
        _, ids = index.search(queries, 10)
    true = dict(zip(vectors.faiss_ids(list(map(digest.of_text, DISTINCT))), DISTINCT, strict=True))
    cosines = np.array(
        [
            [_cosine(query, vector(true[number])) for number in row]
            for query, row in zip(queries, ids, strict=True)
        ]
    )
    assert (cosines >= exact[:, -1:] - 1e-3).mean() > 0.95


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(float), right.astype(float)
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_runs_that_spill_give_the_same_bytes(
    storage: Storage, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = built(storage, shards, "inverted_lists")
    first = storage.read(done.output("lists"))
    removed(storage, done)
    monkeypatch.setattr(lists, "_RUN_BYTES", 4000)
    monkeypatch.setattr(lists, "_JOINED_BYTES", 1000)
    assert storage.read(built(storage, shards, "inverted_lists").output("lists")) == first


def test_codes_that_were_made_before_give_the_same_bytes(storage: Storage, shards: list[Shard]) -> None:
    done = built(storage, shards, "inverted_lists")
    first = storage.read(done.output("lists"))
    removed(storage, done)
    encoded = [
        replace(shard, encoded=written(storage, shard, trained(storage, shards), str(number)))
        for number, shard in enumerate(shards)
    ]
    assert storage.read(built(storage, encoded, "inverted_lists").output("lists")) == first


def written(storage: Storage, shard: Shard, made_by: Quantiser, name: str) -> str:
    encoder = Encoder(made_by)
    for key in shard.chunks:
        encoder.add(vectors.read(storage, key))
    storage.write(f"encoded/{name}", encoder.finish().to_bytes())
    return f"encoded/{name}"


def test_what_was_built_is_not_built_again(
    storage: Storage, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = built(storage, shards)
    monkeypatch.setattr(vectors, "read", None)
    assert built(storage, shards[::-1]) == done


@KINDS
def test_of_colliding_ids_the_first_document_stays(
    storage: Storage, shards: list[Shard], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(doc_ids: list[str]) -> np.ndarray:
        return np.array([int(doc_id[:16], 16) % 97 for doc_id in doc_ids], np.int64)

    monkeypatch.setattr(vectors, "faiss_ids", crowded)
    done = built(storage, shards, kind)
    by_id: dict[int, list[str]] = {}
    for text in DISTINCT:
        by_id.setdefault(int(crowded([digest.of_text(text)])[0]), []).append(digest.of_text(text))
    assert done.figures["documents"] == len(by_id)
    assert done.figures["collisions"] == len(DISTINCT) - len(by_id)
    assert done.ledger is not None
    assert done.ledger.rejected["id_collision"] == ROWS - len(by_id) - done.figures["repeated"]
    with opened_index(storage, done) as index:
        found = index.places(np.array(sorted(by_id)))
        kept = [text for text in DISTINCT if digest.of_text(text) in set(found["doc_id"].to_pylist())]
        _, ids = index.search(np.stack([vector(text) for text in kept]), 1)
        own = [place["doc_id"] for place in index.places(ids[:, 0]).to_pylist()]
    assert found["doc_id"].to_pylist() == [min(by_id[number]) for number in sorted(by_id)]
    assert own == [digest.of_text(text) for text in kept]


@KINDS
def test_one_document_is_enough(storage: Storage, make_shard: MakeShard, kind: str) -> None:
    made_by = trained(storage, [make_shard(9)]) if kind == "inverted_lists" else None
    done = build.build(storage, "index/e/news", "news", [make_shard(0, ["only one"])], made_by)
    with opened_index(storage, done) as index:
        similarities, ids = index.search(vector("only one")[None], 10)
    assert ids.shape == similarities.shape == (1, 1)
    assert similarities[0, 0] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("flat", "index"),
        ("flat", "places"),
        ("inverted_lists", "index"),
        ("inverted_lists", "lists"),
        ("inverted_lists", "places"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short_is_named(
    storage: Storage, shards: list[Shard], kind: str, name: str, share: float
) -> None:
    done = built(storage, shards, kind)
    data = storage.read(done.output(name))
    storage.write(done.output(name), data[: int(share * len(data))])
    for few_queries in (False, True):
        with pytest.raises(
            InputError, match=r"index/e/news/(\w+)/(index|places).*; or delete .*/\1.json and"
        ):
            opened_index(storage, done, few_queries)


def test_places_of_another_index_are_refused(storage: Storage, shards: list[Shard]) -> None:
    done, other = built(storage, shards), built(storage, shards[:2])
    outputs = indexed.outputs("corpus", done)
    with pytest.raises(InputError, match=f"places for {len(DISTINCT)} vectors"):
        OpenIndex(storage, outputs | {"corpus_places": other.output("places")}, "corpus")


def test_a_place_that_is_missing_is_named(storage: Storage, shards: list[Shard]) -> None:
    done = built(storage, shards)
    with opened_index(storage, done) as index, pytest.raises(InputError, match="no place for 1 of 1 ids"):
        index.places(np.array([12345]))


def test_documents_without_places_are_refused(storage: Storage, shards: list[Shard]) -> None:
    whole = [replace(shard, documents=shard.chunks[0], rows=128) for shard in shards]
    with pytest.raises(InputError, match="of documents that no place is known of"):
        built(storage, whole, "inverted_lists")


def test_missing_rows_are_counted(storage: Storage, shards: list[Shard]) -> None:
    short = [replace(shards[0], documents=shards[0].chunks[0]), *shards[1:]]
    with pytest.raises(InputError, match=f"hold {ROWS - 370 + 128} of {ROWS} vectors: embed anew"):
        built(storage, short)


def test_missing_codes_are_counted(storage: Storage, shards: list[Shard]) -> None:
    made_by = trained(storage, shards)
    key = written(storage, replace(shards[0], chunks=shards[0].chunks[:1]), made_by, "short")
    with pytest.raises(InputError, match=rf"has \d+ vectors for {len(DISTINCT)} documents"):
        build.build(storage, "index/e/news", "news", [replace(shards[0], encoded=key), *shards[1:]], made_by)


@pytest.mark.parametrize("other", ["quantiser", "dimension"])
def test_codes_of_another_quantiser_are_refused(
    storage: Storage, shards: list[Shard], make_shard: MakeShard, other: str
) -> None:
    if other == "quantiser":
        stranger = Quantiser(Quantiser.trained(vectors.read(storage, shards[0].chunks[0]).values, 16), "x")
        key = written(storage, shards[0], stranger, "strange")
    else:
        wide = make_shard(7, texts_of(0), dimension=24)
        stranger = Quantiser(Quantiser.trained(vectors.read(storage, wide.chunks[0]).values, 32), "x")
        key = written(storage, wide, stranger, "strange")
    with pytest.raises(InputError, match=r"encoded/strange was encoded by quantiser \w+ into \d+ bytes"):
        built(storage, [replace(shards[0], encoded=key), *shards[1:]], "inverted_lists")


def test_codes_that_are_damaged_are_named(storage: Storage, shards: list[Shard]) -> None:
    key = written(storage, shards[0], trained(storage, shards), "cut")
    storage.write(key, storage.read(key)[:-100])
    with pytest.raises(InputError, match="encoded/cut does not hold encoded vectors"):
        built(storage, [replace(shards[0], encoded=key), *shards[1:]], "inverted_lists")


def test_codes_of_one_id_twice_are_refused(storage: Storage, shards: list[Shard]) -> None:
    made_by = trained(storage, shards)
    key = written(storage, shards[0], made_by, "once")
    found = Encoded.read(storage, key, made_by)
    found.ids[1] = found.ids[0]
    storage.write(key, found.to_bytes())
    with pytest.raises(InputError, match="encoded/once holds an id twice"):
        Encoded.read(storage, key, made_by)


@KINDS
def test_vectors_of_another_dimension_are_refused(
    storage: Storage, shards: list[Shard], make_shard: MakeShard, kind: str
) -> None:
    other = make_shard(5, dimension=24)
    with pytest.raises(InputError, match=r"of (dimension )?24"):
        built(storage, [*shards, other], kind)


def test_a_query_of_another_dimension_is_refused(storage: Storage, shards: list[Shard]) -> None:
    with (
        opened_index(storage, built(storage, shards)) as index,
        pytest.raises(InputError, match="of dimension 3 do not fit an index of 16"),
    ):
        index.search(np.ones((1, 3), np.float32), 1)


def test_many_buckets_and_row_groups_give_the_same_places(
    storage: Storage, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = built(storage, shards)
    with opened_index(storage, done) as index:
        everything = index.search(np.stack([vector(text) for text in DISTINCT]), 1)[1][:, 0]
        first = index.places(everything)
    removed(storage, done)
    monkeypatch.setattr(places, "_SORTED_ROWS", 100)
    monkeypatch.setattr(places, "_GROUP_ROWS", 16)
    again = built(storage, shards)
    found = Places(storage, again.output("places"))
    assert found.find(everything).equals(first)
    assert found.starting_with(first["doc_id"][5].as_py()[:9])["row"].to_pylist() == [first["row"][5].as_py()]
    assert len(found.starting_with("0" * 16)) == 0
    assert len(found.starting_with("")) == len(DISTINCT)


def test_a_prefix_may_be_longer_than_an_id(storage: Storage, shards: list[Shard]) -> None:
    found = Places(storage, built(storage, shards).output("places"))
    whole = digest.of_text(DISTINCT[0])
    assert found.starting_with(whole)["doc_id"].to_pylist() == [whole]
    assert len(found.starting_with(whole[:20] + "0" * 12)) == 0


def test_manifests_say_what_was_built(storage: Storage, shards: list[Shard]) -> None:
    done = built(storage, shards, "inverted_lists")
    stored = manifest.load(storage, done.output("index").rpartition("/")[0] + ".json")
    assert stored == done
    assert done.figures["nlist"] == 32
    assert done.figures["bytes"] == sum(storage.stat(key).size for key in done.outputs.values())


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """FAISS tells of few training points, and of files that have moved."""
    yield
    capfd.readouterr()
