"""Answers for any number of images: in parts, as Parquet files, by this process or by a Ray cluster."""
