"""Shared helpers of the report, one room for each thing: see the README."""

import sys

# jsonschema, under nbformat, imports this if it is there, to check addresses, of which a notebook has none. Compiling
# its grammar takes a second of every step that reads a notebook.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
