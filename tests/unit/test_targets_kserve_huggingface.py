"""Models from Hugging Face on KServe: options, token and protocol."""

import pytest

from longshore.errors import InvalidValue
from longshore.spec import HuggingFaceOptions, KServeOptions, ModelSource, Release, Resources, Service
from longshore.targets.kserve import KServeTarget

MODEL = ModelSource(uri="hf://meta-llama/Llama-3-8B:main", format="huggingface", name="llama")


def rendered(version=(0, 20), model=MODEL, resources=None, **options):
    (manifest,) = KServeTarget(version).render(release(model, resources, **options))
    return manifest


def release(model=MODEL, resources=None, **options):
    kserve = KServeOptions(huggingface=HuggingFaceOptions(**options), args=["--extra"])
    service = Service(name="chat", env={"A": "b"}, resources=resources or Resources(), kserve=kserve)
    return Release(service=service, model=model)


def server(**options):
    return rendered(**options)["spec"]["predictor"]["model"]


def test_a_model_of_the_hub_on_gpus():
    model = server(
        backend="vllm",
        dtype="bfloat16",
        max_length=8192,
        tensor_parallel=2,
        trust_remote_code=True,
        resources=Resources(cpu="4", memory="32Gi", gpu=2),
    )
    assert model["runtime"] == "kserve-huggingfaceserver"
    assert model["storageUri"] == "hf://meta-llama/Llama-3-8B:main"
    assert model["args"] == [
        "--backend=vllm",
        "--dtype=bfloat16",
        "--max_model_len=8192",
        "--tensor-parallel-size=2",
        "--trust_remote_code",
        "--disable_log_requests",
        "--extra",
    ]
    assert model["resources"] == {
        "requests": {"cpu": "4", "memory": "32Gi"},
        "limits": {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "2"},
    }


def test_a_classifier():
    options = {"backend": "huggingface", "task": "sequence_classification", "probabilities": True, "log_requests": True}
    assert server(**options)["args"] == [
        "--task=sequence_classification",
        "--backend=huggingface",
        "--return_probabilities",
        "--extra",
    ]


def test_the_token_stays_in_its_secret():
    manifest = rendered(token_secret="hub")
    assert manifest["metadata"]["annotations"]["serving.kserve.io/storageSecretName"] == "hub"
    assert manifest["spec"]["predictor"]["model"]["env"] == [
        {"name": "A", "value": "b"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}},
    ]
    stored = ModelSource(uri="pvc://models/llama", format="huggingface", name="llama")
    assert (
        "serving.kserve.io/storageSecretName"
        not in rendered(model=stored, token_secret="hub")["metadata"]["annotations"]
    )


@pytest.mark.parametrize(
    ("options", "protocols"),
    [
        ({"backend": "vllm"}, ("openai",)),
        ({"backend": "huggingface", "task": "text_generation"}, ("openai",)),
        ({"backend": "huggingface", "task": "fill_mask"}, ("v1", "v2")),
        ({}, ("v1", "v2")),
    ],
)
def test_a_generating_model_speaks_openais_protocol(options, protocols):
    assert KServeTarget().endpoint(release(**options), []).protocols == protocols


REFUSED = {
    "HuggingFaceOptions.task": {"task": "poetry", "backend": "huggingface"},
    "HuggingFaceOptions.backend": {"backend": "tgi"},
    "HuggingFaceOptions.dtype": {"dtype": "int3"},
    "HuggingFaceOptions.max_length": {"max_length": 0},
    "HuggingFaceOptions.tensor_parallel": {"tensor_parallel": 2, "backend": "vllm"},
    "HuggingFaceOptions.tokenizer_revision": {"tokenizer_revision": "--trust_remote_code"},
    "HuggingFaceOptions.token_secret": {"token_secret": "hf_ABC"},
    "HuggingFaceOptions.probabilities": {"probabilities": True, "backend": "vllm"},
    "HuggingFaceOptions.raw_logits": {"raw_logits": True, "probabilities": True},
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_the_server_cannot_do_is_refused_by_name(field):
    with pytest.raises(InvalidValue) as caught:
        rendered(**REFUSED[field])
    assert caught.value.field == field


def test_vllm_takes_no_task_and_only_it_takes_several_gpus():
    with pytest.raises(InvalidValue, match="vLLM knows its task itself"):
        HuggingFaceOptions(task="text_generation")
    with pytest.raises(InvalidValue, match="only vLLM can"):
        HuggingFaceOptions(tensor_parallel=2)


def test_what_a_version_or_a_format_does_not_have_is_refused():
    with pytest.raises(InvalidValue, match=r"this came with 0\.16"):
        rendered((0, 15), raw_logits=True)
    with pytest.raises(InvalidValue, match="the model's format is sklearn"):
        rendered(model=ModelSource(uri="s3://a/b", format="sklearn", name="iris"))
