"""What a file is that is not what its ending says, by its first bytes: one message instead of a million.

An empty file is no such mistake: it may be whole when it is uploaded again. What
looks right here may still be damaged further on; its reader says so.
"""

import json
import re
from dataclasses import dataclass

from aitp_tasks.inputs.formats import COMPRESSIONS, Format, Kind

#: Of the first bytes, as many are looked at.
LOOKED_AT = 64 * 1024
#: Bytes with which formats begin, with the ending that a file of them should have.
_BEGINNINGS = (
    (b"PAR1", ".parquet"),
    (b"ARROW1", ".arrow"),
    (b"\xff\xff\xff\xff", ".arrow"),
    (b"\x1f\x8b", ".gz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
    (b"\xfd7zXZ\x00", ".xz"),
)
#: Behind "BZh" and a digit: of a stream with blocks, and of an empty one.
_BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")
_ZIP = b"PK\x03\x04"
_POINTER = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<error", b"<head")
_TAR, _TAR_AT = b"ustar", 257
#: The marks of encodings that are not UTF-8; the longer ones first.
_MARKS = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"))
_SHORT_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_NULS_LOOKED_AT = 4096
#: More zero bytes than a character has in any encoding: of a file that was not written to its end.
_HOLE = re.compile(rb"\0{4,}")
_FEATHER_1 = b"FEA1"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
#: What divides the fields of CSV, with its name.
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Mistake:
    """Why a file is not read, and what to do."""

    reason: str
    remedy: str


#: What zstd is that was compressed with ``--long``, or with ``--ultra`` and a high level.
LONG_WINDOW = Mistake(
    "it is compressed by zstd with a window of more than 128 MiB",
    "compress it again without --long (zstd -dc --long=31 FILE | zstd -o NEW)",
)


def of_bytes(head: bytes, kind: Kind) -> Mistake | None:
    """What is wrong with a file that begins with these bytes, as it lies in storage.

    Args:
        head: the first ``LOOKED_AT`` bytes, or all where there are fewer.
        kind: what the file is by its ending.
    """
    if not head:
        return None
    if head.startswith(_POINTER):
        return Mistake(
            "it is a pointer of git-LFS, not the file itself", "run git lfs pull, then upload the file"
        )
    if head.lstrip().lower().startswith(_PAGES):
        return Mistake(
            "it is HTML or XML, such as the page of an error or of a download", "download it again"
        )
    if head.startswith(_ZIP):
        return Mistake("it is a zip archive", "unpack it and upload what is in it")
    if head.startswith(_FEATHER_1):
        return Mistake(
            "it is Feather of version 1, whose files are not Arrow IPC",
            "write it again as version 2 (pyarrow.feather.write_feather does), or as Parquet",
        )
    if kind.format is not Format.TAR and not kind.packed and len(head) >= 4 and not head.strip(b"\0"):
        return Mistake("it begins with nothing but zero bytes", "upload it again: it was not written whole")
    ending = _ending_of(head)
    expected = kind.packed or f".{kind.format}"
    if ending in COMPRESSIONS and ending != expected:
        if kind.is_table:
            return Mistake(f"it is compressed by {COMPRESSIONS[ending]}", "decompress it and upload it again")
        return Mistake(
            f"it is compressed by {COMPRESSIONS[ending]}", f"let its name end in .{kind.format}{ending}"
        )
    if kind.packed:
        return _unpacked(head, kind) if ending != kind.packed else None
    if ending and ending != expected:
        return Mistake(f"it is {Format(ending[1:]).label}", f"let its name end in {ending}")
    if kind.is_table and head.lstrip()[:1] in (b"{", b"["):
        return Mistake("it is JSON", "let its name end in .jsonl, or in .json where it is one array")
    return None if kind.is_table or kind.format is Format.TAR else _encoding(head)


def of_text(head: bytes, kind: Kind) -> Mistake | None:
    """What is wrong with a file of text that begins with these bytes, once they are decompressed."""
    if kind.format is Format.TAR:
        return None
    ending = _ending_of(head) if kind.packed else None
    if ending in COMPRESSIONS:
        return Mistake(
            f"it is compressed twice, the inner time by {COMPRESSIONS[ending]}", "decompress it once"
        )
    if ending is not None:
        return Mistake(f"it is {Format(ending[1:]).label}, compressed", f"let it lie there as {ending}")
    if wrong := _encoding(head):
        return wrong
    match kind.format:
        case Format.JSON_LINES | Format.JSON:
            return _of_json(head, kind.format)
        case Format.CSV | Format.TSV:
            return _of_csv(head, kind.format)
    return None


def _ending_of(head: bytes) -> str | None:
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return ".tar"
    if head.startswith(b"BZh") and head[4:10] in _BZIP2:
        return ".bz2"
    # Writers in parallel begin with a frame to be skipped.
    if head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:
        return ".zst"
    return next((ending for beginning, ending in _BEGINNINGS if head.startswith(beginning)), None)


def _unpacked(head: bytes, kind: Kind) -> Mistake | None:
    """A file that should be compressed and begins with something else."""
    name = COMPRESSIONS[kind.packed]
    if _ending_of(head) == f".{kind.format}" or head.lstrip()[:1] in (b"{", b"[") or _printable(head):
        return Mistake(f"it is not compressed by {name}", f"let its name end in .{kind.format}")
    return Mistake(f"it does not begin as {name} does", "upload it again")


def _printable(head: bytes) -> bool:
    # What is no text has bytes that are neither printed nor white space.
    return not any(byte < 9 or 13 < byte < 32 for byte in head[:_NULS_LOOKED_AT])


def _encoding(head: bytes) -> Mistake | None:
    name = next((name for mark, name in (*_MARKS, *_SHORT_MARKS) if head.startswith(mark)), None)
    some = _HOLE.sub(b"", head[:_NULS_LOOKED_AT])
    if name is None and some.count(0) * 4 > len(some):
        name = "UTF-32" if some.count(0) * 8 > len(some) * 5 else "UTF-16"
    if name is None:
        return None
    return Mistake(
        f"it is in {name}, not UTF-8", f"convert it (iconv -f {name} -t UTF-8) and upload it again"
    )


def _of_csv(head: bytes, found: Format) -> Mistake | None:
    """CSV whose header has one name only, with other delimiters in it."""
    text = head.decode(errors="replace").removeprefix("\ufeff").lstrip("\r\n")
    header = _QUOTED.sub("", re.split("[\r\n]", text, maxsplit=1)[0])
    expected = "," if found is Format.CSV else "\t"
    if expected in header:
        return None
    other = next((mark for mark in _DELIMITERS if mark in header), None)
    if other is None:
        return None
    ending = {",": ".csv", "\t": ".tsv"}.get(other)
    remedy = f"let its name end in {ending}" if ending else f"write it with {_DELIMITERS[expected]}"
    return Mistake(
        f"its header has {_DELIMITERS[other]} instead of {_DELIMITERS[expected]} between the names", remedy
    )


def _of_json(head: bytes, found: Format) -> Mistake | None:
    """JSON whose first row goes on over lines, or JSON Lines with a list of what should be the rows."""
    lines = [line for line in head.lstrip(b"\xef\xbb\xbf").split(b"\n") if line.strip()][:2]
    if not lines:
        return None
    first = lines[0].strip()
    if found is Format.JSON_LINES and first.startswith(b"[") and _is_list_of_rows(first):
        return Mistake("it is one array", "let its name end in .json")
    if first.startswith(b"{") and len(lines) > 1 and _goes_on(first) and not _is_object(lines[1]):
        return Mistake(
            "its first line is not a whole object, so it is not JSON Lines",
            "write one object a line" + (", or one array" if found is Format.JSON else ""),
        )
    return None


def _is_list_of_rows(line: bytes) -> bool:
    """Whether a line begins an array that goes on, or is one with an object in it."""
    try:
        value = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        rest = line[1:].lstrip()
        return not rest or rest.startswith(b"{")
    return any(isinstance(item, dict) for item in value)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode(errors="replace")), dict)
    except (ValueError, RecursionError):
        return False


def _goes_on(line: bytes) -> bool:
    text = line.decode(errors="replace").rstrip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except RecursionError:
        pass
    return False
