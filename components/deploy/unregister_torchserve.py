"""Have a TorchServe that runs forget a version."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def unregister_torchserve(
    name: str,
    version: str,
    management: str,
    inference: str,
    key_file: Optional[str] = None,
    ca_file: Optional[str] = None,
    timeout_seconds: int = 300,
):
    """Unregister a version that is not the default, once it has answered what it was asked.

    Args:
        name: Name of the model.
        version: The version; one that is gone already is no error.
        management: URL of the management API.
        inference: URL where TorchServe predicts.
        key_file: The ``key_file.json`` that TorchServe has written; by default the tokens come from the environment, as
            ``update_torchserve`` says.
        ca_file: Certificates of the authorities to trust.
        timeout_seconds: For its workers to answer what they have begun.

    Raises:
        ConfigError: If it is the default and there are others.
        DeployError: If its workers are not done by then; it then answers as before.
    """
    from longshore.torchserve import ModelServer, unregister_version

    server = ModelServer.connect(management, inference, key_file=key_file, ca_file=ca_file)
    unregister_version(server, name, version, timeout_seconds=timeout_seconds)
