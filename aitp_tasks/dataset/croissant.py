"""A version's ``croissant.json``: its files with their digests and its columns, as Croissant 1.0.

Paths are relative, so that the folder can be moved. Fields are the columns; turns have
fields of their own unless they are of type JSON (see ``records.conversations``), and are
text then.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import pyarrow as pa

from aitp_tasks.config import Assemble, licences
from aitp_tasks.records import data_files
from aitp_tasks.records.contents import StoredFile

NAME = "croissant.json"
#: Of each split, what its records and the set of its files are called.
_SETS = {data_files.SPLIT: ("default", "rows"), data_files.VALIDATION: ("validation", "validation-rows")}
_PARQUET = "application/x-parquet"
#: Croissant's own, as its specification has it.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"int64": "sc:Integer", "double": "sc:Float"}


def metadata(
    settings: Assemble, version: str, description: str, schema: pa.Schema, shards: Mapping[str, StoredFile]
) -> dict[str, Any]:
    """The file as plain values.

    Args:
        settings: of the run that makes the version.
        version: its name.
        description: in one sentence.
        schema: of the Parquet shards.
        shards: by their paths.
    """
    # By the names of the shards: the first split is always there.
    splits = [split for split in _SETS if any(fnmatch(path, data_files.pattern(split)) for path in shards)]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": settings.dataset,
        "description": description,
        "version": version,
        **licence(settings),
        "distribution": [
            *(_file(path, shards[path]) for path in sorted(shards)),
            *(_file_set(split) for split in splits),
        ],
        "recordSet": [_record_set(split, schema) for split in splits],
    }


def licence(settings: Assemble) -> dict[str, str]:
    """What it says of the licence; nothing where none is configured."""
    if settings.license is None:
        return {}
    own = settings.license_link or settings.license_name
    return {"license": own or licences.known()[settings.license]}


def written(told: Mapping[str, Any]) -> str:
    """The file's text."""
    return json.dumps(told, indent=1) + "\n"


def relicensed(text: str, settings: Assemble) -> str:
    """The file with another licence, at the same place."""
    told = {}
    for name, value in json.loads(text).items():
        if name != "license":
            told[name] = value
        if name == "version":
            told |= licence(settings)
    return written(told)


def _file(path: str, stored: StoredFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{stored.bytes} B",
        "encodingFormat": _PARQUET,
        "sha256": stored.sha256,
    }


def _file_set(split: str) -> dict[str, Any]:
    """All shards of a split."""
    _, rows = _SETS[split]
    # In no file, though it is just these: mlcroissant reads such a set from archives only.
    return {
        "@type": "cr:FileSet",
        "@id": rows,
        "name": rows,
        "encodingFormat": _PARQUET,
        "includes": data_files.pattern(split),
    }


def _record_set(split: str, schema: pa.Schema) -> dict[str, Any]:
    records, rows = _SETS[split]
    return {
        "@type": "cr:RecordSet",
        "@id": records,
        "name": records,
        "field": [_field(records, rows, column.name, column.type) for column in schema],
    }


def _field(records: str, rows: str, name: str, kind: pa.DataType) -> dict[str, Any]:
    """A column, or a turn's part of one."""
    inner = kind.value_type if pa.types.is_list(kind) else kind
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": name,
        "source": _source(rows, name),
    }
    if pa.types.is_list(kind):
        field["repeated"] = True
    if pa.types.is_struct(inner):
        return field | {"subField": [_part(records, rows, name, part) for part in inner]}
    return field | {"dataType": _TYPES.get(str(inner), "sc:Text")}


def _part(records: str, rows: str, column: str, part: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{column}/{part.name}",
        "name": part.name,
        "dataType": _TYPES.get(str(part.type), "sc:Text"),
        "source": _source(rows, column) | {"transform": {"jsonPath": part.name}},
    }


def _source(rows: str, column: str) -> dict[str, Any]:
    return {"fileSet": {"@id": rows}, "extract": {"column": column}}
