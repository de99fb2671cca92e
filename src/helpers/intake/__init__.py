"""A stranger's files: guessed, drafted, fetched, inspected; and the reference of study.yaml."""
