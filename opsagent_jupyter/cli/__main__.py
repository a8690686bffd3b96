"""``python -m opsagent_jupyter.cli``: the command line without its script."""

from __future__ import annotations

from opsagent_jupyter.cli.main import main

main()
