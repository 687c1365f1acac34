"""In place of PyTorch: what TorchServe's workers take of it."""


class Tensor:
    """Nothing is one."""
