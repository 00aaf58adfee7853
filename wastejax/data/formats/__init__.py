"""Readers of the layouts that labelled images come in; each returns a `source.Source`."""
