"""Readers of the layouts that labeled images come in; each returns a `source.Source`."""
