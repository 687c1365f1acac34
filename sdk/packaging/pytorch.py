"""PyTorch networks: programs of torch.export (``model.pt2``) and TorchScript (``model.pt``).

Neither file is a pickle of the user's classes: both hold the network's own program, so that loading takes no code of
whoever trained it. The digest is checked before all the same.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from longshore.errors import MissingExtra, ModelError
from longshore.packaging.card import ModelCard
from longshore.packaging.feeds import FeedReader
from longshore.packaging.model import SCRIPT_FILE
from longshore.packaging.network import NetworkRegressor, as_model

__all__ = ["load_pytorch"]


def load_pytorch(content: bytes, name: str, card: ModelCard, reader: FeedReader, where: str) -> NetworkRegressor:
    """The model of a packaged network.

    Args:
        content: The file's bytes, checked against the card.
        name: Its name, which says what it is.
        card: The card.
        reader: Makes its tensors.
        where: The file, for messages.

    Raises:
        MissingExtra: If torch is not installed.
        ModelError: If the file cannot be loaded.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the model {where}", "torch", "torch") from error
    threads = os.environ.get("OMP_NUM_THREADS", "")
    # its own default is a thread for each core of the node, whatever part of them a pod may use
    torch.set_num_threads(int(threads) if threads.isdecimal() else 1)
    try:
        network = _script(content) if name == SCRIPT_FILE else torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # it raises RuntimeError, KeyError, UnpicklingError and what they stumble over
        made = card.libraries.get("torch", "unknown")
        raise ModelError(
            f"{where} could not be loaded ({type(error).__name__}: {error}): it was made with torch {made}, and here "
            f"is {torch.__version__}"
        ) from error
    order = [feed.name for feed in card.feeds]

    def run(tensors: Mapping[str, np.ndarray]) -> Any:
        with torch.inference_mode():
            return network(*(torch.from_numpy(tensors[name]) for name in order)).numpy()

    return as_model(run, reader, card, where)


def _script(content: bytes) -> Any:
    import torch

    with warnings.catch_warnings():
        # it goes on loading what was stored with it
        warnings.filterwarnings("ignore", message="`torch.jit.load` is deprecated")
        return torch.jit.load(io.BytesIO(content), map_location="cpu")
