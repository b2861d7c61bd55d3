"""Holds the demo's four workloads as grammars, so that traffic never repeats itself and every answer can be checked."""
