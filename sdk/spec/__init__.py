"""What a person asks to be served, as plain values.

All types are frozen and check themselves when built: a value that exists is valid. Nothing here opens a
connection or imports a platform's client.
"""

from __future__ import annotations

from longshore.spec.graph import GraphNode, GraphStep, GraphTimeouts, InferenceGraph
from longshore.spec.huggingface import HuggingFaceOptions
from longshore.spec.kserve import Batcher, Container, KServeOptions, PayloadLogger
from longshore.spec.llm import LLMPrefill, LLMRouter, LLMService, Parallelism
from longshore.spec.outcome import Endpoint, Health, HealthState
from longshore.spec.plain import from_plain, to_plain
from longshore.spec.router import ROUTERS, Router, Tls
from longshore.spec.seldon import (
    SELDON_SERVERS,
    KedaTrigger,
    SeldonExplainer,
    SeldonGateway,
    SeldonNode,
    SeldonOptions,
)
from longshore.spec.seldon_v2 import (
    SeldonV2Explainer,
    SeldonV2Options,
    SeldonV2Pipeline,
    SeldonV2Server,
    SeldonV2Step,
)
from longshore.spec.service import Release, Service
from longshore.spec.tfserving import Batching, TensorFlowServingOptions
from longshore.spec.torchserve import TORCHSERVE_INSTEAD, TorchServeOptions
from longshore.spec.values import ModelSource, Resources, Scaling, Toleration, Traffic

__all__ = [
    "ROUTERS",
    "SELDON_SERVERS",
    "TORCHSERVE_INSTEAD",
    "Batcher",
    "Batching",
    "Container",
    "Endpoint",
    "GraphNode",
    "GraphStep",
    "GraphTimeouts",
    "Health",
    "HealthState",
    "HuggingFaceOptions",
    "InferenceGraph",
    "KServeOptions",
    "KedaTrigger",
    "LLMPrefill",
    "LLMRouter",
    "LLMService",
    "ModelSource",
    "Parallelism",
    "PayloadLogger",
    "Release",
    "Resources",
    "Router",
    "Scaling",
    "SeldonExplainer",
    "SeldonGateway",
    "SeldonNode",
    "SeldonOptions",
    "SeldonV2Explainer",
    "SeldonV2Options",
    "SeldonV2Pipeline",
    "SeldonV2Server",
    "SeldonV2Step",
    "Service",
    "TensorFlowServingOptions",
    "Tls",
    "Toleration",
    "TorchServeOptions",
    "Traffic",
    "from_plain",
    "to_plain",
]
