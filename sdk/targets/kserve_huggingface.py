"""KServe's Hugging Face server: what its options are on its command line and in its environment."""

from __future__ import annotations

from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import HuggingFaceOptions, Release
from longshore.targets.kserve_versions import too_old

__all__ = ["check_huggingface", "huggingface_arguments", "huggingface_protocols", "token_environment", "token_secret"]

_FORMAT: Final = "huggingface"
_TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of a variable
_RAW_LOGITS_SINCE: Final = (0, 16)


def check_huggingface(release: Release, version: tuple[int, int]) -> None:
    """Refuse options that the release's server, or that of this version of KServe, does not have.

    Raises:
        InvalidValue: Naming the option.
    """
    options = _given(release)
    if options is None:
        return
    if release.model.format != _FORMAT:
        raise InvalidValue(
            "KServeOptions.huggingface", options, f"the model's format is {release.model.format}: leave this out"
        )
    if options.raw_logits and version < _RAW_LOGITS_SINCE:
        raise InvalidValue("HuggingFaceOptions.raw_logits", True, too_old(version, _RAW_LOGITS_SINCE))
    gpus = release.service.resources.gpu
    if options.tensor_parallel is not None and options.tensor_parallel > gpus:
        raise InvalidValue(
            "HuggingFaceOptions.tensor_parallel", options.tensor_parallel, f"a replica has {gpus} GPUs (Resources.gpu)"
        )


def huggingface_arguments(release: Release) -> list[str]:
    """The server's arguments; none for a server that is not Hugging Face's."""
    options = _given(release)
    if options is None:
        return []
    values = {
        "--task": options.task,
        "--backend": options.backend,
        "--dtype": options.dtype,
        "--max_model_len": options.max_length,
        "--tensor-parallel-size": options.tensor_parallel,
        "--tokenizer_revision": options.tokenizer_revision,
    }
    switches = {
        "--trust_remote_code": options.trust_remote_code,
        "--return_probabilities": options.probabilities,
        "--return_raw_logits": options.raw_logits,
        "--disable_log_requests": not options.log_requests,
    }
    given = [f"{name}={value}" for name, value in values.items() if value is not None]
    return given + [name for name, on in switches.items() if on]


def token_secret(release: Release) -> str | None:
    """The Secret that the storage initializer takes for an ``hf://`` model, None where it needs none."""
    options = _given(release)
    return options.token_secret if options is not None and release.model.uri.startswith("hf://") else None


def token_environment(release: Release) -> list[dict[str, Any]]:
    """The token for the server itself, which asks the hub for what is not in the model's files."""
    options = _given(release)
    if options is None or options.token_secret is None:
        return []
    return [{"name": _TOKEN, "valueFrom": {"secretKeyRef": {"name": options.token_secret, "key": _TOKEN}}}]


def huggingface_protocols(release: Release) -> tuple[str, ...]:
    """What is spoken beside or in place of the runtime's protocols; nothing is known where this is empty."""
    options = _given(release)
    return ("openai",) if options is not None and options.generates else ()


def _given(release: Release) -> HuggingFaceOptions | None:
    return None if release.service.kserve is None else release.service.kserve.huggingface
