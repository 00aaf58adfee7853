#!/bin/sh
# grain 0.2.18: DataLoader(worker_count=N) gives each worker every N-th record and lets it make batches of these alone.
# So the number of workers decides which images are in a batch, how many a batch has and how many batches there are. With
# Batch(32, drop_remainder=True), as a compiled step wants it, 4 workers drop 4 remainders instead of one: of 100 images
# they yield no batch at all, and an epoch that trains or scores nothing ends as if all were well. Without
# drop_remainder there are four batches of 25 instead of 32, 32, 32 and 4. The docstring calls the workers child processes
# "to parallelize the transformations among", and batches of PyTorch's loader stay the same with any number of workers.
# MapDataset.batch() before to_iter_dataset() and mp_prefetch() cuts batches first: they stay the same.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q grain==0.2.18
cd "$folder"
cat >run.py <<'END'
import grain
import numpy as np
from absl import flags

IMAGES, BATCH = 100, 32


class Images:
    """A hundred images, each of its number alone."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return np.full((2, 2), index, np.uint8)


def loaded(workers, drop):
    sampler = grain.samplers.IndexSampler(IMAGES, grain.sharding.NoSharding(), shuffle=False, num_epochs=1)
    operations = [grain.transforms.Batch(BATCH, drop_remainder=drop)]
    return grain.DataLoader(data_source=Images(), sampler=sampler, operations=operations, worker_count=workers)


def cut_first(workers, drop):
    cut = grain.MapDataset.source(Images()).batch(BATCH, drop_remainder=drop).to_iter_dataset()
    return cut.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=workers))


def main():
    flags.FLAGS.mark_as_parsed()
    found = {}
    for make, drop, workers in (
        (loaded, True, 0),
        (loaded, True, 4),
        (loaded, False, 0),
        (loaded, False, 4),
        (cut_first, True, 4),
    ):
        batches = list(make(workers, drop))
        found[make.__name__, drop, workers] = [len(batch) for batch in batches]
        first = batches[0][:3, 0, 0].tolist() if batches else None
        print(f"{make.__name__}, drop_remainder={drop}, {workers} workers: {[len(b) for b in batches]}, first {first}")
    assert found["loaded", True, 0] == found["cut_first", True, 4] == [32, 32, 32], found
    assert found["loaded", True, 4] == [], found
    assert found["loaded", False, 0] == [32, 32, 32, 4], found
    assert found["loaded", False, 4] == [25, 25, 25, 25], found


if __name__ == "__main__":
    main()
END
venv/bin/python run.py 2>log || { cat log; exit 1; }
echo "grain 0.2.18 makes other batches with workers: of 100 images 3 batches of 32 with none, no batch with 4"
