"""Small, fast networks that sort waste: images -> batches -> model -> run -> bundle -> answer."""

__version__ = "0.1.0"
