"""Counters, and whether they are above their limits: what `make app` begins an application with."""
