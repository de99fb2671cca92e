"""Running the report: parameters, notebooks, one run at a time, where a run came from, the verdicts."""
