"""How KServe's Hugging Face server serves a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from longshore.errors import InvalidValue
from longshore.spec.checks import check_choice, check_range, check_subdomain

__all__ = ["HuggingFaceOptions"]

HuggingFaceTask = Literal[
    "fill_mask",
    "sequence_classification",
    "text2text_generation",
    "text_embedding",
    "text_generation",
    "time_series_forecast",
    "token_classification",
]
HuggingFaceBackend = Literal["auto", "huggingface", "vllm"]
HuggingFaceType = Literal["auto", "float16", "bfloat16", "float32"]

_TASKS: Final = HuggingFaceTask.__args__  # type: ignore[attr-defined]
_BACKENDS: Final = HuggingFaceBackend.__args__  # type: ignore[attr-defined]
_TYPES: Final = HuggingFaceType.__args__  # type: ignore[attr-defined]
_GENERATES: Final = frozenset({"text_generation", "text2text_generation"})
_CLASSIFIES: Final = frozenset({"fill_mask", "sequence_classification", "token_classification"})


@dataclass(frozen=True, kw_only=True)
class HuggingFaceOptions:
    """How the server loads a model and what it does with it; None leaves it to the server.

    Args:
        task: What the model is asked for; None is known from its architecture. Only the backend ``huggingface`` takes
            one.
        backend: ``vllm``, ``huggingface``, or ``auto``: vLLM where it is there and knows the model.
        dtype: Type of the weights: ``auto``, ``float16``, ``bfloat16`` or ``float32``.
        max_length: Largest number of tokens of a request and its answer.
        tensor_parallel: GPUs that a replica's weights are spread over, with the backend ``vllm``.
        tokenizer_revision: Revision of the tokenizer.
        trust_remote_code: Run code that comes with the model.
        probabilities: Answer with probabilities in place of the class.
        raw_logits: Answer with the logits as they are.
        log_requests: Write prompts into the server's log.
        token_secret: Name of a Secret whose key ``HF_TOKEN`` opens a model that is not public.
    """

    task: HuggingFaceTask | None = None
    backend: HuggingFaceBackend | None = None
    dtype: HuggingFaceType | None = None
    max_length: int | None = None
    tensor_parallel: int | None = None
    tokenizer_revision: str | None = None
    trust_remote_code: bool = False
    probabilities: bool = False
    raw_logits: bool = False
    log_requests: bool = False
    token_secret: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("task", _TASKS), ("backend", _BACKENDS), ("dtype", _TYPES)):
            if (value := getattr(self, name)) is not None:
                check_choice(f"HuggingFaceOptions.{name}", value, choices)
        for name in ("max_length", "tensor_parallel"):
            if (value := getattr(self, name)) is not None:
                check_range(f"HuggingFaceOptions.{name}", value, 1)
        if self.token_secret is not None:
            check_subdomain("HuggingFaceOptions.token_secret", self.token_secret)
        revision = self.tokenizer_revision
        if revision is not None and (not isinstance(revision, str) or not revision or revision.startswith("-")):
            raise InvalidValue("HuggingFaceOptions.tokenizer_revision", revision, "use a branch, a tag or a commit")
        if self.task is not None and self.backend != "huggingface":
            raise InvalidValue(
                "HuggingFaceOptions.task", self.task, "give backend='huggingface' with it: vLLM knows its task itself"
            )
        if self.tensor_parallel is not None and self.backend != "vllm":
            raise InvalidValue(
                "HuggingFaceOptions.tensor_parallel", self.tensor_parallel, "give backend='vllm' with it: only vLLM can"
            )
        if self.probabilities and self.raw_logits:
            raise InvalidValue("HuggingFaceOptions.raw_logits", True, "give probabilities or raw_logits, not both")
        for name in ("probabilities", "raw_logits"):
            if getattr(self, name) and (self.backend == "vllm" or self.task not in (None, *_CLASSIFIES)):
                raise InvalidValue(f"HuggingFaceOptions.{name}", True, "only a classifier has them")

    @property
    def generates(self) -> bool:
        """Whether the server is known to speak OpenAI's protocol, below ``/openai``."""
        return self.backend == "vllm" or self.task in _GENERATES
