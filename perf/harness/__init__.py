"""The parts of perf/run: one file a concern, the Python standard library only."""
