"""Which files a form may name: YAML below one folder.

Whoever can use the page would otherwise have any file of this machine opened, and read some of it in an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from pdbench.errors import UsageError

SUFFIXES = (".yaml", ".yml")


def is_path(text: str) -> bool:
    """Whether ``resources.find`` would open ``text`` as a file, and not as something shipped."""
    return os.sep in text or text.endswith(SUFFIXES)


def check_file(text: str, root: Path, *, where: str) -> None:
    """Whether there is such a file outside ``root`` is not told. Raises ``UsageError``."""
    remedy = "put the file there, or start pdbench web in the folder that holds it"
    refused = UsageError("only *.yaml and *.yml files below the folder of pdbench web", where=where, remedy=remedy)
    try:
        path = (root / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; nobody's home
        raise refused from None
    if path.suffix not in SUFFIXES or not path.is_relative_to(root.resolve()):
        raise refused
