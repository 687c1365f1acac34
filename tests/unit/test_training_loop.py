"""The course of training, with a learner whose losses are known."""

import json

import fsspec
import pytest

from longshore.errors import ConfigError, TrainingError
from longshore.training.loop import Checkpoints, Course, Epoch, epoch_seed, run_epochs
from longshore.validation import course_html


class Killed(BaseException):
    """What a test kills training with."""


class Planned:
    """Its weights are the seeds that it was trained with; its losses are a plan."""

    def __init__(self, losses, *, kill_at=None, validates=True):
        self.losses, self.kill_at, self.validates = losses, kill_at, validates
        self.seeds = []

    def train(self, seed):
        if len(self.seeds) + 1 == self.kill_at:
            raise Killed
        self.seeds.append(seed)
        return {"train_loss": self.losses[len(self.seeds) - 1] / 2}

    def validate(self):
        loss = self.losses[len(self.seeds) - 1]
        return {"validation_loss": loss, "validation_accuracy": 1 - loss} if self.validates else {}

    def state(self):
        return json.dumps(self.seeds).encode()

    def restore(self, state):
        self.seeds = json.loads(state)


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        yield str(tmp_path / "kept")
        return
    fs = fsspec.filesystem("memory")
    yield "memory://bucket/kept"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def run(learner, *, epochs=5, patience=2, checkpoints=None):
    return run_epochs(learner, epochs=epochs, patience=patience, seed=7, checkpoints=checkpoints)


def test_the_best_epochs_weights_are_kept():
    learner = Planned([0.5, 0.3, 0.4, 0.2, 0.6])
    course = run(learner, patience=None)
    assert (course.best, course.stopped, course.resumed, len(course.epochs)) == (4, False, 0, 5)
    assert learner.seeds == [epoch_seed(7, number) for number in (1, 2, 3, 4)]
    assert course.metrics == {"train_loss": 0.1, "validation_loss": 0.2, "validation_accuracy": 0.8}


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 5), (3, 5), (None, 5)])
def test_it_stops_when_nothing_gets_better(patience, epochs):
    course = run(Planned([0.5, 0.3, 0.4, 0.2, 0.6]), patience=patience)
    assert len(course.epochs) == epochs
    assert course.stopped == (epochs < 5)


def test_without_validation_rows_it_goes_on_to_the_end():
    course = run(Planned([0.1, 0.2, 0.3], validates=False), epochs=3, patience=1)
    assert (course.best, len(course.epochs), course.monitored) == (1, 3, "train_loss")


def test_training_that_was_killed_goes_on_as_if_it_had_not_been(place):
    losses = [0.5, 0.3, 0.4, 0.2, 0.6]
    whole = Planned(losses)
    course = run(whole, patience=None)
    checkpoints = Checkpoints(place, "same")
    with pytest.raises(Killed):
        run(Planned(losses, kill_at=3), patience=None, checkpoints=checkpoints)
    resumed = Planned(losses)
    again = run(resumed, patience=None, checkpoints=checkpoints)
    assert again.resumed == 2
    assert (again.epochs, again.best) == (course.epochs, course.best)
    assert resumed.seeds == whole.seeds


def test_the_best_weights_outlive_a_kill_after_them(place):
    losses = [0.5, 0.1, 0.4, 0.4]
    checkpoints = Checkpoints(place, "same")
    with pytest.raises(Killed):
        run(Planned(losses, kill_at=4), epochs=4, patience=None, checkpoints=checkpoints)
    learner = Planned(losses)
    assert run(learner, epochs=4, patience=None, checkpoints=checkpoints).best == 2
    assert len(learner.seeds) == 2


def test_a_course_that_is_over_is_not_trained_again(place):
    checkpoints = Checkpoints(place, "same")
    run(Planned([0.1, 0.2, 0.3]), epochs=3, patience=2, checkpoints=checkpoints)
    learner = Planned([0.1, 0.2, 0.3], kill_at=1)
    again = run(learner, epochs=3, patience=2, checkpoints=checkpoints)
    assert (again.resumed, again.best, len(learner.seeds)) == (3, 1, 1)


def test_another_training_is_not_resumed(place):
    run(Planned([0.3, 0.2]), epochs=2, checkpoints=Checkpoints(place, "one"))
    assert run(Planned([0.3, 0.2]), epochs=2, checkpoints=Checkpoints(place, "other")).resumed == 0


def test_it_is_forgotten_when_asked_to(place):
    checkpoints = Checkpoints(place, "same")
    checkpoints.clear()
    run(Planned([0.3, 0.2]), epochs=2, checkpoints=checkpoints)
    assert checkpoints.read() is not None
    checkpoints.clear()
    assert checkpoints.read() is None


def test_a_damaged_checkpoint_is_told_and_left(place, caplog):
    checkpoints = Checkpoints(place, "same")
    run(Planned([0.3, 0.2]), epochs=2, checkpoints=checkpoints)
    content = bytearray(checkpoints.read())
    content[60] ^= 0xFF
    checkpoints.write(bytes(content))
    assert run(Planned([0.3, 0.2]), epochs=2, checkpoints=checkpoints).resumed == 0
    assert "cannot be used" in caplog.text
    assert "training begins anew" in caplog.text


def test_a_loss_that_is_no_number_ends_it():
    with pytest.raises(TrainingError, match="epoch 2: train_loss is nan: take a lower learning rate"):
        run(Planned([0.5, float("nan"), 0.1]))


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": True}, {"patience": 0}, {"patience": 1.5}])
def test_settings_that_are_none_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        run(Planned([0.1]), **options)


def test_each_epoch_has_a_seed_of_its_own():
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_course_is_a_page():
    epochs = tuple(
        Epoch(number=n, metrics={"train_loss": 1 / n, "validation_loss": 1.5 / n, "validation_rmse": 2.0 / n})
        for n in range(1, 4)
    )
    course = Course(epochs=epochs, best=3, stopped=True, resumed=1)
    html = course_html(course, title="<Training>")
    assert html == course_html(course, title="<Training>")
    assert "&lt;Training&gt;" in html
    assert "resumed from a checkpoint after epoch 1" in html
    assert html.count("<svg") == 2
    assert "Root of the mean squared error" in html
    assert "0.333333" in html


def test_a_course_of_one_epoch_is_a_page():
    course = Course(epochs=(Epoch(number=1, metrics={"train_loss": 0.5}),), best=1, stopped=False, resumed=0)
    assert "<svg" in course_html(course, title="t")
