"""pdbench: does separating prefill from decode pay, for this model, hardware, traffic and SLO?

Importing this package imports neither torch nor locust; a test keeps it so.
"""

__version__ = "0.1.0"
