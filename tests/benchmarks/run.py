"""Run the benchmarks: every ``bench_NAME.py`` beside this file, or those whose NAMEs are in ONLY (comma-separated).

Prints a table and writes build/bench.json. A goal that is not met is shown as not met and ends the command with 1.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rows import Row

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "build" / "bench.json"


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def chosen(only: str) -> list[str]:
    """The benchmarks to run; raises SystemExit for a name that there is not."""
    wanted = [name.strip() for name in only.split(",") if name.strip()] or names()
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        raise SystemExit(f"there is no benchmark {', '.join(unknown)}: there is {', '.join(names())}")
    return wanted


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    head = ("figure", "longshore", "spread", "peer", "peer's", "ratio", "goal", "met", "runs")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (
            row.name,
            f"{row.value:.3g} {row.unit}",
            f"{row.spread:.2g}",
            row.peer,
            "-" if row.peer == "-" else f"{row.peer_value:.3g} {row.unit}",
            "-" if row.ratio is None else f"{row.ratio:.3g}",
            row.goal or "-",
            {True: "yes", False: "NO", None: "-"}[row.met],
            str(row.runs),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run what was chosen; 1 if a goal is not met."""
    rows: list[Row] = []
    for name in chosen(os.environ.get("ONLY", "")):
        print(f"bench_{name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"bench_{name}").bench()
    print(f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}\n\n{table(rows)}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
