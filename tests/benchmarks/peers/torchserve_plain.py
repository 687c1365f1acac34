"""What TorchServe's documentation has its users write: its own base handler with a few lines for the requests."""

import torch
from ts.torch_handler.base_handler import BaseHandler


class Plain(BaseHandler):
    """Takes pictures as pixels in JSON, and answers the most likely class."""

    def preprocess(self, data):
        rows = [row for entry in data for row in (entry.get("data") or entry.get("body"))["instances"]]
        return torch.tensor([row["photo"] for row in rows], dtype=torch.uint8, device=self.device).unsqueeze(-1)

    def postprocess(self, data):
        return [{"predictions": [answer]} for answer in data.argmax(1).tolist()]
