"""How a longshore component is declared.

``component`` is ``kfp.dsl.component`` with this library's image and without pip at run time. This module is
imported when pipelines are written and compiled, never inside a running step: there kfp hides ``dsl.component``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from kfp import dsl
from kfp.dsl.pipeline_context import Pipeline
from kfp.dsl.python_component import PythonComponent

from longshore.errors import InvalidValue
from longshore.spec.image import image_name

__all__ = ["IMAGE", "IMAGES", "IMAGE_ENV", "PACKAGES_ENV", "UncachedComponent", "component", "image"]

IMAGE: Final = image_name("python")
"""The image that steps run in: longshore and all its extras, nothing left to install.

``LONGSHORE_IMAGE_REGISTRY`` names another registry for it, and for the images of servers.
"""

IMAGES: Final[Mapping[str, str]] = {
    "python": IMAGE,
    "torch": image_name("torch"),
    "tensorflow": image_name("tensorflow"),
}
"""The images by what is in them besides; those of deep learning are too large for every step to start in."""

IMAGE_ENV: Final = "LONGSHORE_IMAGE"
PACKAGES_ENV: Final = "LONGSHORE_PACKAGES_TO_INSTALL"


def image(kind: str = "python") -> str:
    """An image for the pipelines compiled by this process.

    Args:
        kind: One of :data:`IMAGES`. The environment variable ``LONGSHORE_IMAGE`` names another ``python``,
            ``LONGSHORE_TORCH_IMAGE`` another ``torch`` and ``LONGSHORE_TENSORFLOW_IMAGE`` another ``tensorflow``.
    """
    variable = IMAGE_ENV if kind == "python" else f"LONGSHORE_{kind.upper()}_IMAGE"
    value = os.environ.get(variable) or IMAGES[kind]
    if any(c.isspace() or ord(c) < 32 for c in value):
        raise InvalidValue(variable, value, "use an image reference without white space")
    return value


def component(function: Callable[..., Any] | None = None, *, cached: bool = True, kind: str = "python") -> Any:
    """Declare a pipeline step.

    Args:
        function: The step; its signature becomes the component's interface, its docstring the documentation.
        cached: False for a step that changes the world (register, deploy): Kubeflow then never skips it.
        kind: The image that it runs in, one of :data:`IMAGES`.

    Returns:
        The component. Its image is :func:`image`; nothing is installed at run time unless
        ``LONGSHORE_PACKAGES_TO_INSTALL`` (comma-separated requirements) was set when it was declared.
    """
    if function is None:
        return functools.partial(component, cached=cached, kind=kind)
    packages = [p.strip() for p in os.environ.get(PACKAGES_ENV, "").split(",") if p.strip()]
    built = dsl.component(
        function,
        base_image=image(kind),
        install_kfp_package=False,
        packages_to_install=packages or None,
    )
    return built if cached else UncachedComponent(component_spec=built.component_spec, python_func=built.python_func)


class UncachedComponent(PythonComponent):  # type: ignore[misc]  # kfp is untyped
    """A component whose tasks always run: ``task.set_caching_options(True)`` switches caching back on."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        task = super().__call__(*args, **kwargs)
        # outside a pipeline kfp has already run the step and refuses options
        return task if Pipeline.get_default_pipeline() is None else task.set_caching_options(enable_caching=False)
