"""The HTML report: pages, figures of its own, crate, PDF, archive."""
