"""Knowing when a cycle is due: drift, performance and triggers."""
