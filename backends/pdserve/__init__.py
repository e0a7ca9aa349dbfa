"""pdserve: a small, readable LLM serving engine that runs colocated or disaggregated.

A house of its own: it never imports pdbench. pdbench reaches it through three doors only: HTTP, the
backend YAML, and ``python -m pdserve serve|simulate|check`` run as a subprocess.
"""

__version__ = "0.1.0"
