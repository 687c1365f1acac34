"""Train a PyTorch network."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from longshore.authoring import component


@component(kind="torch")
def train_torch(
    train: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    course: Output[HTML],
    target: str,
    network: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    source: Optional[Input[Artifact]] = None,
    source_digest: Optional[str] = None,
    validation: Optional[Input[Dataset]] = None,
    validation_share: float = 0.1,
    task: str = "auto",
    epochs: int = 20,
    batch_size: int = 64,
    patience: Optional[int] = 5,
    optimizer: Optional[str] = None,
    optimizer_parameters: Optional[Dict[str, Any]] = None,
    loss: Optional[str] = None,
    seed: int = 0,
    exclude: Optional[List[str]] = None,
    text_column: Optional[str] = None,
    text_length: int = 128,
    vocabulary_size: int = 20000,
    image_size: Optional[List[int]] = None,
    save_as: str = "pt2",
    loader_workers: int = 0,
    checkpoints: Optional[str] = None,
) -> NamedTuple(
    "Outputs", [("task", str), ("best_epoch", int), ("resumed_epoch", int), ("rows", int), ("digest", str)]
):
    """Train a PyTorch network on columns, pictures and texts, with early stopping and checkpoints.

    What is done to the data before the network is in the model's file, so that the endpoint takes raw rows. The network
    gives scores, without a softmax. On a processor, the same data, arguments and seed give the same model, byte for
    byte, within one set of library versions, whether training was resumed or not.

    Args:
        train: Table to train on: columns, pictures as bytes (``load_images``), texts.
        model: Directory with the model and its card (signature, baseline for drift, digests, versions).
        metrics: What was measured in the best epoch.
        course: The course of the epochs, with pictures.
        target: Column to be predicted.
        network: Import path of a class or function that gives a ``torch.nn.Module``; by default a small one.
            Of its arguments, ``outputs``, ``features``, ``image_shape``, ``vocabulary`` and ``length`` are given by
            what is known of the data.
        parameters: Its other arguments.
        source: The code that the network is in: a Python file, or a folder or archive of modules. By default it is
            looked up in the image.
        source_digest: SHA-256 that the source has to have (``longshore.training.source_digest``); without it nothing of
            it is run.
        validation: Table to stop by; by default a part of ``train``.
        validation_share: That part; 0 stops by nothing.
        task: ``classification``, ``regression``, or ``auto`` to tell it from the target.
        epochs: At most so many passes over the training rows.
        batch_size: Rows that the weights are changed after.
        patience: It stops after so many epochs without a lower loss on the validation rows; null never stops it.
        optimizer: Import path of the optimizer's class; AdamW by default.
        optimizer_parameters: Its arguments, such as ``{"lr": 0.01}``.
        loss: Import path of the loss; cross entropy or the mean squared error by default.
        seed: Seed of everything random.
        exclude: Columns not to learn from.
        text_column: Column of texts to be read word by word.
        text_length: So many words of each are read.
        vocabulary_size: So many of the most frequent words are known.
        image_size: Height and width that pictures are scaled to, and channels; by default as the pictures are.
        save_as: ``pt2`` (a program of torch.export), ``torchscript`` or ``onnx``.
        loader_workers: Processes that prepare batches beside the one that trains.
        checkpoints: Path or URI of a directory that outlives the step, such as a mounted volume or a bucket: the state
            after each epoch is kept there, and a retried step resumes from it. By default beside the model, which lasts
            as long as the machine.

    Returns:
        task: What was trained.
        best_epoch: The epoch whose weights are kept.
        resumed_epoch: The epoch after which it was resumed from a checkpoint; 0 if it was not.
        rows: Rows with a target.
        digest: SHA-256 of the model directory.

    Raises:
        DataError: If there is nothing to learn from, or a picture is none.
        DigestMismatch: If the source is not what it should be.
        TrainingError: If the network cannot be imported, built, trained or exported.
    """
    from pathlib import Path

    from longshore.artifacts import write_network
    from longshore.training import read_dataset, train_torch
    from longshore.validation import course_html

    trained = train_torch(
        read_dataset(train.path),
        target=target,
        network=network,
        parameters=parameters,
        source=None if source is None else Path(source.path),
        source_digest=source_digest,
        validation=None if validation is None else read_dataset(validation.path),
        validation_share=validation_share,
        task=task,
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        optimizer=optimizer,
        optimizer_parameters=optimizer_parameters,
        loss=loss,
        seed=seed,
        exclude=exclude or (),
        text_column=text_column,
        text_length=text_length,
        vocabulary_size=vocabulary_size,
        image_size=image_size,
        save_as=save_as,
        loader_workers=loader_workers,
        checkpoints=checkpoints or f"{model.path}.checkpoints",
    )
    digest = trained.save(Path(model.path))
    write_network(model, metrics, trained, digest)
    Path(course.path).write_text(course_html(trained.course, title=f"Training: {target}"), encoding="utf-8")
    card = trained.card
    return card.task, trained.course.best, trained.course.resumed, card.rows, digest
