"""setup.cfg lists what there is: setuptools cannot find packages whose folders have other names."""

import configparser
from pathlib import Path

import longshore

ROOT = Path(__file__).parents[2]


def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def packages_on_disk():
    for folder, package in (
        ("sdk", "longshore"),
        ("components", "longshore.components"),
        ("pipelines", "longshore.pipelines"),
    ):
        for init in (ROOT / folder).rglob("__init__.py"):
            yield ".".join([package, *init.parent.relative_to(ROOT / folder).parts])


def test_every_package_is_listed():
    assert sorted(config()["options"]["packages"].split()) == sorted(packages_on_disk())


def test_public_names_exist():
    assert longshore.__all__ == sorted(longshore.__all__)
    for name in longshore.__all__:
        assert getattr(longshore, name) is not None
    assert dir(longshore) == longshore.__all__


def test_there_is_one_version():
    assert config()["metadata"]["version"] == "attr: sdk._version.__version__"
    assert longshore.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
