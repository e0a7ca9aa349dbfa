"""``pdbench web``: Locust's web UI with our start form and SLO tab, and a page of live charts beside it."""
