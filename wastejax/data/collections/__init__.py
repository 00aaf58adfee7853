"""Images in any number, one part after the other: below folders, in tar shards and Parquet files, behind URLs."""
