"""What every test may rely on, however the suite was started."""

from __future__ import annotations

import os
import signal

# A shell that starts a job in the background has it ignore Ctrl-C, and so would every process the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A page beside every run that a test makes would double the time of the suite; tests of pages ask for them.
os.environ.setdefault("PDBENCH_NO_REPORT", "1")
