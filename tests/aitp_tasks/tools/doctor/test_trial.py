"""Each trial with the real parts, and with parts that are not what they should be."""

from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.densities.field import Field
from aitp_tasks.encoder import opened
from aitp_tasks.errors import InputError
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.tools.doctor import trial, trials
from aitp_tasks.tools.doctor.finding import Level
from tests.aitp_tasks import made, stores
from tests.aitp_tasks.conftest import Configure


def test_the_storage_is_tried_and_left_as_it_was(configure: Configure, root: Path) -> None:
    before = sorted(root.rglob("*"))
    assert trial.storage(configure()).endswith("written, read, listed, written on conditions, deleted")
    assert sorted(root.rglob("*")) == before


def test_only_its_own_folder_is_removed(configure: Configure, tmp_path: Path) -> None:
    """As a URL, the root would end at the #, at another folder."""
    other = tmp_path / "data" / "probes"
    other.mkdir(parents=True)
    trial.storage(configure(root=f"file://{tmp_path}/data#2"))
    assert other.is_dir()
    assert not (tmp_path / "data#2" / "probes").exists()


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("write_if_absent", True, "does not keep conditional writes"),
        ("write_if_matches", True, "does not keep conditional writes"),
        ("write_if_matches", False, "refuses the right If-Match"),
        ("read", b"other", "does not give back what was written"),
        ("list", (), "does not list what was written"),
    ],
)
def test_a_storage_that_is_not_fit_is_named_and_cleaned(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: object, message: str
) -> None:
    monkeypatch.setattr(LocalStorage, name, lambda *_: answer)
    with pytest.raises(InputError, match=message):
        trial.storage(configure())
    assert not (root / "probes").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"refuses_all": (403, "AccessDenied")}, r"refuses the credentials \(AccessDenied\)"),
        ({"refuses_all": (404, "NoSuchBucket")}, "bucket 'bucket' does not exist"),
        ({"ignores": {"If-None-Match"}}, r"does not keep conditional writes \(If-None-Match\)"),
        ({"ignores": {"If-Match"}}, r"does not keep conditional writes \(If-Match\)"),
        ({"refuses": {"If-Match"}}, "refuses the right If-Match"),
    ],
)
def test_a_bucket_that_refuses_says_why(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], message: str
) -> None:
    """What cannot be removed after it does not hide it: this store deletes nothing."""
    with stores.serving() as store:
        for name, value in {
            "AWS_ENDPOINT_URL": store.address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "hidden-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        for name, value in told.items():
            setattr(store, name, value)
        with pytest.raises(InputError, match=message) as raised:
            trial.storage(configure(root="s3://bucket"))
        assert "hidden-secret" not in str(raised.value)


def test_densities_are_right_and_wrong_ones_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.densities(None).startswith("200 densities of 400 points, off by ")
    real = Field.at
    monkeypatch.setattr(Field, "at", lambda field, points: real(field, points) * 1.01)
    with pytest.raises(InputError, match="densities are off by 0.01 where 0.001 is promised"):
        trial.densities(None)


def test_an_encoder_that_does_not_tell_meanings_apart_is_named(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its vectors say nothing of the text.
    monkeypatch.setattr(opened, "open_encoder", lambda *_: made.encoder(lambda _: (1, 1)))
    with pytest.raises(InputError, match="finds two texts of one meaning no nearer"):
        trial.embed(configure())
    monkeypatch.setattr(
        opened, "open_encoder", lambda *_: made.encoder(lambda text: (int("river" in text), 1))
    )
    assert "dimension 16, on made; cosines 1.00 and " in trial.embed(configure())


@pytest.mark.slow
@pytest.mark.side_by_side
def test_the_real_encoder_is_tried_in_a_process_of_its_own(configure: Configure) -> None:
    finding = trials.attempt("embed", configure())
    assert finding.level is Level.OK
    assert finding.says.startswith("3 texts, dimension 384")


@pytest.mark.slow
def test_the_real_engine_rewrites_a_document(configure: Configure, smollm2: Path) -> None:
    engine = {"model": str(smollm2), "max_model_len": 1024, "engine_args": {"enforce_eager": True}}
    prompts = {"folder": configure().prompts.folder, "sampling": {"max_tokens": 64}}
    finding = trials.attempt("engine", configure(engine=engine, prompts=prompts))
    assert finding.level is Level.OK, finding.says
    assert " tokens, " in finding.says
