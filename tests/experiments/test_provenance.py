"""What committed numbers come with."""

import datetime

import pytest

from experiments.provenance import named, provenance


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train --data=/home/me/set --out=OUT", "train --data=set --out=OUT"),
        ("audit /mnt/a/b.csv relative/c.csv", "audit b.csv relative/c.csv"),
        ("train '--data=/home/me too/set' --source=shards:/a/b /c", "train '--data=set' --source=shards:b c"),
        ("eval https://a.org/b don't /a/b", "eval https://a.org/b don't b"),
        ("eval --model=runs/a/b --rate=1/2", "eval --model=runs/a/b --rate=1/2"),
    ],
)
def test_paths_of_a_machine_are_named_by_their_last_part(command, expected):
    assert named(command) == expected


def test_a_result_says_with_what_when_and_where_it_was_made():
    about = provenance("python x.py /etc/hosts", "0123456789abcdef")
    assert about["command"] == "python x.py hosts" and about["commit"] == "0123456789ab"
    assert about["date"] == str(datetime.date.today()) and " cores, " in about["hardware"]
