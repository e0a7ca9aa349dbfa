"""``python -m pdbench``."""

from __future__ import annotations

from pdbench.cli.main import main

main()
