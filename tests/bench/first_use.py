"""How long ``%load_ext`` and the first ``%opsagent`` take in fresh kernels, as the person feels it: cell sent to cell idle.

Run as ``python -m tests.bench.first_use [KERNELS]``; prints medians in milliseconds as JSON. Figures, not a test.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from tests.kernels import kernel


def measure(kernels: int) -> dict[str, float]:
    """Medians over fresh kernels; a bare cell is measured beside them, because a kernel's own answer takes time too."""
    found: dict[str, list[float]] = {"bare cell": [], "load_ext": [], "first %opsagent": [], "second %opsagent": []}
    for _ in range(kernels):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'opsagent.db'}"
            with kernel(OPSAGENT_STORE_URL=url) as fresh:
                fresh.run("1")
                found["bare cell"].append(fresh.run("2").seconds)
                found["load_ext"].append(fresh.run("%load_ext opsagent_jupyter").seconds)
                found["first %opsagent"].append(fresh.run("%opsagent").seconds)
                fresh.run("_.card")
                found["second %opsagent"].append(fresh.run("%opsagent").seconds)
    return {name: round(statistics.median(times) * 1000, 1) for name, times in found.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7), indent=2))
