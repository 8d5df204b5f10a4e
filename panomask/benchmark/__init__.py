"""What panomask's work costs beside what a user would take instead; `tools/benchmark.py` runs it."""
