"""Knowing when: triggers, drift, performance, and following a source."""
