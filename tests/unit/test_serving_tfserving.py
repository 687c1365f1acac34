"""What is beside TensorFlow Serving in a pod."""

import json

import pytest

from longshore.errors import DigestMismatch, InvalidValue, ModelError
from longshore.packaging.model import directory_digest
from longshore.serving.tfserving import fetch_models, main, watch_versions
from longshore.spec import Batching, ModelSource, to_plain


@pytest.fixture
def models(tmp_path):
    """Two versions, and where to bring them."""
    found = []
    for version in ("3", "4"):
        place = tmp_path / "store" / version
        (place / "variables").mkdir(parents=True)
        (place / "saved_model.pb").write_bytes(version.encode())
        (place / "variables" / "variables.index").write_bytes(b"")
        digest = directory_digest(place)
        found.append(ModelSource(uri=str(place), format="tensorflow", name="iris", version=version, digest=digest))
    return found


def test_models_are_laid_out_with_their_configuration(models, tmp_path):
    folder = tmp_path / "models"
    arguments = ["fetch", f"--to={folder}", "--models=" + json.dumps([to_plain(one) for one in models])]
    arguments.append('--labels={"stable": "3", "canary": "4"}')
    arguments.append("--batching=" + json.dumps(to_plain(Batching(max_batch_size=8))))
    assert main(arguments) == 0
    assert (folder / "iris" / "4" / "saved_model.pb").read_bytes() == b"4"
    assert (folder / "iris" / "3" / "variables" / "variables.index").is_file()
    config = (folder / "models.config").read_text()
    assert f'base_path: "{folder}/iris"' in config
    assert [f'key: "{label}"' in config for label in ("stable", "canary")] == [True, True]
    assert "prometheus_config" in (folder / "monitoring.config").read_text()
    assert "max_batch_size" in (folder / "batching.config").read_text()
    # a pod whose loader is started once more
    assert main(arguments) == 0


def test_what_is_not_what_was_recorded_is_not_there(models, tmp_path, capsys):
    (tmp_path / "store" / "4" / "saved_model.pb").write_bytes(b"other")
    folder = tmp_path / "models"
    with pytest.raises(DigestMismatch):
        fetch_models(models, folder)
    assert sorted(path.name for path in (folder / "iris").iterdir()) == ["3"]
    assert main(["fetch", f"--to={folder}", "--models=" + json.dumps([to_plain(one) for one in models])]) == 1
    assert "sha256" in capsys.readouterr().err
    assert not (folder / "models.config").exists()


def test_what_is_no_saved_model_is_refused(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "model.joblib").write_bytes(b"")
    source = ModelSource(uri=str(tmp_path / "store"), format="tensorflow", name="iris", version="3")
    with pytest.raises(ModelError, match=r"has no saved_model\.pb"):
        fetch_models([source], tmp_path / "models")
    assert not (tmp_path / "models" / "iris" / "3").exists()


def test_a_label_has_to_name_a_version_that_is_fetched(models, tmp_path):
    with pytest.raises(InvalidValue):
        fetch_models(models, tmp_path / "models", labels={"stable": 9})


def status(**states):
    """The server's answer: by version, a state or the error that ended it."""
    told = []
    for version, state in states.items():
        code, text = ("OK", "") if state in ("START", "LOADING", "AVAILABLE") else ("NOT_FOUND", state)
        told.append(
            {
                "version": version.removeprefix("v"),
                "state": state if code == "OK" else "END",
                "status": {"error_code": code, "error_message": text},
            }
        )
    return {"model_version_status": told}


def test_it_waits_until_all_are_available():
    answers = [
        None,
        {"error": "Could not find any versions of model iris"},
        status(v3="START"),
        status(v3="AVAILABLE", v4="LOADING"),
        status(v3="AVAILABLE", v4="AVAILABLE"),
    ]
    pauses = []
    watch_versions(lambda: answers.pop(0), "iris", [3, 4], lambda: pauses.append(1))
    assert (answers, len(pauses)) == ([], 4)


def test_it_ends_with_the_servers_words():
    answer = status(v3="AVAILABLE", v4="Could not find SavedModel .pb")
    words = "TensorFlow Serving cannot load iris, version 4: NOT_FOUND: Could not find SavedModel .pb"
    with pytest.raises(ModelError, match=words):
        watch_versions(lambda: answer, "iris", [3, 4], pytest.fail)
