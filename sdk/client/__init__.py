"""Ask an endpoint for predictions, as a client of its users would."""

from longshore.client.access import Access
from longshore.client.connection import PROTOCOLS, Client, predict
from longshore.client.probe import ProbeReport, check_answers, probe, replay
from longshore.client.tensors import as_rows

__all__ = ["PROTOCOLS", "Access", "Client", "ProbeReport", "as_rows", "check_answers", "predict", "probe", "replay"]
