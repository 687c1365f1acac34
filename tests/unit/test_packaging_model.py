"""Model directories on disk."""

import errno
import hashlib
import json
import logging
import os
import pickle
from dataclasses import replace
from pathlib import Path

import fsspec
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from longshore.errors import DataError, DigestMismatch, MissingExtra, ModelError, StorageError
from longshore.packaging import (
    directory_digest,
    load_model,
    package_model,
    read_card,
    save_model,
    verify,
)
from longshore.packaging import loading as loading_module
from longshore.spec import ModelSource
from longshore.training import train_sklearn


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).frame


@pytest.fixture(scope="module")
def trained(iris):
    return train_sklearn(iris, target="target", estimator="sklearn.linear_model.LogisticRegression")


@pytest.fixture
def saved(trained, tmp_path):
    directory = tmp_path / "model dir é"
    return directory, save_model(directory, trained.model, trained.card)


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def source(directory, digest=None, **changes):
    return replace(ModelSource(uri=str(directory), format="sklearn", name="model", digest=digest), **changes)


def test_a_saved_model_loads_and_predicts_the_same(saved, trained, iris):
    directory, digest = saved
    loaded = load_model(directory, digest)
    assert loaded.card == read_card(directory)
    assert replace(loaded.card, files={}) == trained.card
    features = iris.drop(columns="target")
    np.testing.assert_array_equal(loaded.predict(iris), trained.model.predict(features))
    probabilities = loaded.predict_proba(iris)
    assert probabilities.shape == (150, len(loaded.card.signature.classes))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(loaded.predict(features, conformed=True), loaded.predict(iris))


def test_the_file_is_what_joblib_loads(saved, iris):
    pipeline = joblib.load(saved[0] / "model.joblib")
    assert pipeline.predict(iris.drop(columns="target")).shape == (150,)


def test_columns_that_came_or_went_are_told_at_prediction(saved, iris):
    loaded = load_model(saved[0])
    with pytest.raises(DataError, match="column 'petal width \\(cm\\)' is missing"):
        loaded.predict(iris.drop(columns="petal width (cm)"))
    with pytest.raises(DataError, match="column 'colour' is unknown"):
        loaded.predict_proba(iris.assign(colour="blue"))
    with pytest.raises(DataError, match="no rows"):
        loaded.predict(iris.head(0))


def test_a_model_without_probabilities_says_none(iris, tmp_path):
    trained = train_sklearn(iris, target="sepal length (cm)", estimator="sklearn.linear_model.Ridge")
    save_model(tmp_path / "m", trained.model, trained.card)
    assert load_model(tmp_path / "m").predict_proba(iris) is None


def test_saving_again_replaces_and_gives_the_same_digest(saved, trained):
    directory, digest = saved
    (directory / "left over").write_text("x")
    assert save_model(directory, trained.model, trained.card) == digest
    assert sorted(path.name for path in directory.iterdir()) == ["model-settings.json", "model.joblib", "model.json"]


def test_the_digest_is_that_of_sha256sum(saved):
    directory, digest = saved
    lines = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(directory.iterdir())
    )
    assert digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest() == directory_digest(directory)


def test_the_directory_does_not_tell_where_or_when_it_was_made(saved, tmp_path):
    for path in saved[0].iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content
        assert str(Path.cwd()).encode() not in content


def flip_a_byte(directory):
    path = directory / "model.joblib"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(directory):
    path = directory / "model.joblib"
    path.write_bytes(path.read_bytes()[:100])


def change_the_card(directory):
    path = directory / "model.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short])
@pytest.mark.parametrize("with_digest", [True, False])
def test_a_changed_file_is_not_loaded(saved, damage, with_digest, monkeypatch):
    directory, digest = saved
    damage(directory)
    monkeypatch.setattr(joblib, "load", lambda *_: pytest.fail("the file was run"))
    with pytest.raises(DigestMismatch, match="model"):
        load_model(directory, digest if with_digest else None)


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short])
def test_a_changed_file_is_found_by_the_card_alone(saved, damage):
    damage(saved[0])
    with pytest.raises(DigestMismatch, match="model.joblib"):
        verify(saved[0])


def test_a_changed_card_is_found_by_the_digest(saved):
    directory, digest = saved
    change_the_card(directory)
    verify(directory)
    with pytest.raises(DigestMismatch):
        verify(directory, digest)


def test_a_file_that_changes_between_check_and_load_is_not_loaded(saved, monkeypatch):
    directory, digest = saved
    monkeypatch.setattr(loading_module, "_check_libraries", lambda *_: flip_a_byte(directory))
    with pytest.raises(DigestMismatch, match="model.joblib"):
        load_model(directory, digest)


def add_file(directory):
    (directory / "extra.pkl").write_bytes(b"x")


def add_link(directory):
    (directory / "model.joblib").rename(directory.parent / "elsewhere")
    (directory / "model.joblib").symlink_to(directory.parent / "elsewhere")


def add_folder_link(directory):
    (directory / "more").symlink_to(directory.parent)


def add_pipe(directory):
    os.mkfifo(directory / "pipe")


def point_outside(directory):
    content = json.loads((directory / "model.json").read_text())
    content["files"]["../elsewhere"] = "sha256:" + "0" * 64
    (directory / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: (d / "model.joblib").unlink(), "is incomplete: model.joblib is in model.json but not there"),
        (lambda d: (d / "model.json").unlink(), r"has no model.json \(it holds: model-settings.json, model.joblib\)"),
        (lambda d: (d / "model.json").write_bytes(b"\xff"), "cannot be read"),
        (add_file, "holds files that model.json does not name: extra.pkl"),
        (add_link, "is a symbolic link"),
        (add_folder_link, "is a symbolic link"),
        (add_pipe, "is a special file"),
        (point_outside, "outside of the directory"),
    ],
)
def test_a_directory_that_is_not_as_written_is_refused(saved, change, says):
    change(saved[0])
    with pytest.raises(ModelError, match=says):
        load_model(saved[0])


def test_a_missing_directory_says_what_a_model_is(tmp_path):
    for function in (load_model, verify, read_card, directory_digest):
        with pytest.raises(ModelError, match="nowhere is not a directory"):
            function(tmp_path / "nowhere")


def test_a_missing_library_names_the_extra(trained, tmp_path, monkeypatch):
    card = replace(trained.card, libraries={**trained.card.libraries, "xgboost": "3.0"})
    save_model(tmp_path / "m", trained.model, card)
    monkeypatch.setattr(loading_module, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'longshore\[xgboost\]'"):
        load_model(tmp_path / "m")


class Unloadable:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _raise, (self.error,)


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            ModuleNotFoundError("No module named 'mylib'", name="mylib"),
            "needs the module 'mylib', which is not installed",
        ),
        (ValueError("node array has incompatible dtype"), "could not be loaded .*node array has incompatible dtype"),
    ],
)
def test_a_model_that_cannot_be_unpickled_says_why(trained, tmp_path, error, says):
    save_model(tmp_path / "m", Unloadable(error), trained.card)
    with pytest.raises(ModelError, match=says):
        load_model(tmp_path / "m")


def test_another_scikit_learn_is_logged_and_not_warned(trained, tmp_path, caplog):
    card = replace(trained.card, libraries={**trained.card.libraries, "scikit-learn": "1.0.2"})
    save_model(tmp_path / "m", trained.model, card)
    with caplog.at_level(logging.WARNING):
        load_model(tmp_path / "m")
    assert "was trained with scikit-learn 1.0.2" in caplog.text


def test_the_warning_of_scikit_learn_itself_is_not_shown_twice(trained, tmp_path, monkeypatch):
    pipeline = pickle.loads(pickle.dumps(trained.model))
    monkeypatch.setattr("sklearn.base.__version__", "1.0.2")
    save_model(tmp_path / "m", pipeline, trained.card)
    monkeypatch.undo()
    assert load_model(tmp_path / "m").model.get_params()


def test_a_model_that_cannot_be_stored_leaves_nothing(trained, tmp_path):
    with pytest.raises(ModelError, match="cannot be stored"):
        save_model(tmp_path / "m", lambda frame: frame, trained.card)
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    def __reduce__(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_what_was_there(saved, trained):
    directory, digest = saved
    with pytest.raises(StorageError, match="No space left on device"):
        save_model(directory, FullDisk(), trained.card)
    assert directory_digest(directory) == digest
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_packaging_copies_to_name_and_version(saved, tmp_path):
    directory, digest = saved
    packaged = package_model(source(directory, digest), str(tmp_path / "repository"), name="iris", version="3")
    assert packaged == ModelSource(
        uri=str(tmp_path / "repository/iris/3"), format="sklearn", name="iris", version="3", digest=digest
    )
    verify(Path(packaged.uri), digest)


def test_packaging_records_a_digest_that_was_unknown(saved, tmp_path):
    directory, digest = saved
    assert package_model(source(directory), str(tmp_path / "r"), name="iris", version="1").digest == digest


@pytest.mark.parametrize("repository", ["{tmp}/repository", "memory://bucket/repository"])
def test_packaging_twice_changes_nothing_and_other_content_is_refused(saved, iris, tmp_path, repository, memory):
    repository = repository.format(tmp=tmp_path)
    directory, digest = saved
    first = package_model(source(directory, digest), repository, name="iris", version="1")
    assert package_model(source(directory, digest), repository, name="iris", version="1") == first
    other = train_sklearn(iris, target="target", estimator="sklearn.linear_model.LogisticRegression", seed=1)
    other_digest = save_model(tmp_path / "other", other.model, other.card)
    with pytest.raises(ModelError, match="already holds another model .*give the model a new one"):
        package_model(source(tmp_path / "other", other_digest), repository, name="iris", version="1")
    again = package_model(source(first.uri, digest), str(tmp_path / "back"), name="iris", version="1")
    assert directory_digest(Path(again.uri)) == digest


def test_a_changed_source_is_not_packaged(saved, tmp_path):
    directory, digest = saved
    change_the_card(directory)
    with pytest.raises(DigestMismatch):
        package_model(source(directory, digest), str(tmp_path / "r"), name="iris", version="1")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("name", "version"), [("../evil", "1"), ("iris", ".."), ("iris", "1/2"), ("iris", "v1")])
def test_a_name_that_would_leave_the_repository_is_refused(saved, tmp_path, name, version):
    with pytest.raises(ValueError, match="is not valid"):
        package_model(source(saved[0]), str(tmp_path / "r"), name=name, version=version)
    assert not (tmp_path / "r").exists()


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(StorageError, match="nowhere: no such directory"):
        package_model(source(tmp_path / "nowhere"), str(tmp_path / "r"), name="iris", version="1")


def test_a_full_disk_while_packaging_leaves_nothing(saved, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    monkeypatch.setattr("shutil.copy2", full)
    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(StorageError, match="No space left on device"):
        package_model(source(*saved), str(tmp_path / "r"), name="iris", version="1")
    assert list((tmp_path / "r" / "iris").iterdir()) == []


def test_packaged_numbers_survive(saved, iris, tmp_path):
    packaged = package_model(source(*saved), str(tmp_path / "r"), name="iris", version="1")
    before, after = load_model(saved[0]), load_model(Path(packaged.uri), packaged.digest)
    pd.testing.assert_frame_equal(pd.DataFrame(before.predict_proba(iris)), pd.DataFrame(after.predict_proba(iris)))
