"""Recipes: each file's get_config() returns a complete, documented ml_collections.ConfigDict."""
