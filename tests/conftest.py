"""What every test may rely on, however the suite was started."""

from __future__ import annotations

import signal

# A shell that starts a job in the background has it ignore Ctrl-C, and so would every process the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
