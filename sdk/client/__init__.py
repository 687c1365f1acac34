"""Ask an endpoint for predictions, as a client of its users would."""

from longshore.client.access import Access
from longshore.client.answers import Answer
from longshore.client.connection import PROTOCOLS, Client
from longshore.client.kept import ask, close_kept, predict, send_feedback
from longshore.client.probe import ProbeReport, check_answers, probe, replay
from longshore.client.tensors import as_rows

__all__ = [
    "PROTOCOLS",
    "Access",
    "Answer",
    "Client",
    "ProbeReport",
    "as_rows",
    "ask",
    "check_answers",
    "close_kept",
    "predict",
    "probe",
    "replay",
    "send_feedback",
]
