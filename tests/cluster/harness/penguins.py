"""The table that most models in the tests are of: Palmer penguins, from examples/data."""

from pathlib import Path

__all__ = ["PENGUINS", "ROW"]

PENGUINS = Path(__file__).parents[3] / "examples" / "data" / "penguins.csv"

ROW = {
    "species": "Adelie",
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181,
    "sex": "male",
    "year": 2007,
}
"""A row of it for a model of ``body_mass_g``."""
