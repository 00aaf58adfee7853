"""CSV files as programs and spreadsheets of any country write them: the same rows come back."""

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wastejax.data.corrections import load_corrections
from wastejax.data.description.label_map import load_label_map
from wastejax.data.formats.csv_file import SEPARATORS, Spelling, csv_reader
from wastejax.data.formats.table import open_tables
from wastejax.errors import ConfigError, UserError

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS), max_size=5),
    st.sampled_from(SEPARATORS),
    st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
    st.sampled_from(("\n", "\r\n")),
)
def test_what_is_written_is_read(rows, separator, encoding, end):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("file", "label"), *rows])
    found = csv_reader(text.getvalue().encode(encoding))
    assert [(row["file"], row["label"]) for row in found] == rows


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("File, Label\na.png, x\n", [("a.png", "x")]),
        (" FILE ;LABEL\n a.png;x y\n", [(" a.png", "x y")]),  # a name may begin with a space
        ("file\tlabel\n\na.png\tx,y\n", [("a.png", "x,y")]),
        ("file,label,,\na.png,x,,\nb.png\n", [("a.png", "x"), ("b.png", "")]),
    ],
)
def test_heads_may_be_spelled_in_capitals_and_amid_spaces(content, rows):
    found = csv_reader(content.encode(), ("file", "label"))
    assert [(row["file"], row["label"]) for row in found] == rows


def test_other_columns_keep_their_names():
    assert csv_reader(b"file,Glass Jar,label\n", ("file",)).fieldnames == ["file", "Glass Jar", "label"]


@pytest.mark.parametrize("reading", [load_corrections, load_label_map, lambda p: open_tables([p], "--data")])
def test_another_encoding_is_told_with_what_to_do(tmp_path, reading):
    path = tmp_path / "old.csv"
    path.write_bytes("file,label,classes\na.png,유리,glass\n".encode("cp949"))
    with pytest.raises(Exception, match=r"not in UTF-8 .*; save it as 'CSV UTF-8'"):
        reading(path)


@pytest.mark.parametrize("reading", [load_corrections, load_label_map, lambda p: open_tables([p], "--data")])
def test_cells_beyond_the_head_are_refused_with_their_line(tmp_path, reading):
    path = tmp_path / "list.csv"
    path.write_text("file;label;classes\na.png;can;can;\nb.png;jar;jar;can\n")
    problem = r"line 3 has more cells than the head, 'can'; quote a cell that holds ';'"
    with pytest.raises(UserError, match=problem) as error:
        reading(path)
    assert "\n" not in str(error.value)
    path.write_text('file;label;classes\na.png;can;can;\nb.png;"jar;can";jar\n')
    reading(path)


def test_empty_cells_beyond_the_head_are_no_column(tmp_path):
    (tmp_path / "list.csv").write_text("file,tag,\na.png,can,,\n")
    with pytest.raises(ConfigError, match=r"it has file, tag, $"):
        open_tables([tmp_path / "list.csv"], "--data")


def names_of(path: Path) -> list[tuple[str, str]]:
    source = open_tables([path], "--data")
    return list(zip(source.names, source.label_names, strict=True))


def test_tables_name_files_as_windows_does(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "b\\2.png").touch()  # no folder: here a name may hold one
    table = tmp_path / "windows.csv"
    table.write_text("file,label\na\\1.png,x\nb\\2.png,y\n")
    assert names_of(table) == [("a/1.png", "x"), ("b\\2.png", "y")]


def test_spaces_around_labels_make_no_other_classes(tmp_path):
    table = tmp_path / "spaces.csv"
    table.write_text("file,label\n1.png,glass\n2.png,glass \n3.png, \n")
    assert names_of(table) == [("1.png", "glass"), ("2.png", "glass")]


def test_json_lines_end_where_lines_do(tmp_path):
    table = tmp_path / "lines.jsonl"
    table.write_text('{"file": "1.png", "label": "a\u2028b"}\n', encoding="utf-8")
    assert names_of(table) == [("1.png", "a\u2028b")]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "file,label\nhttps://example.org/1.png,x\n", "lists an address, https://example.org/1.png"),
        ("a.jsonl", "[1, 2]\n", "each line must be an object"),
    ],
)
def test_what_tables_cannot_say_is_one_line(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=problem):
        open_tables([tmp_path / name], "--data")


def test_names_of_files_are_found_as_windows_and_macos_write_them():
    def parts(text: str) -> str:
        return unicodedata.normalize("NFD", text)

    names = {"유리/0.png", parts("금속/0.png"), "a/é.png", parts("a/é.png"), "odd\\0.png"}
    spelled = Spelling(names)
    assert all(spelled(name) == name for name in names)
    assert spelled(parts("유리\\0.png")) == "유리/0.png"
    assert spelled("금속/0.png") == parts("금속/0.png")
    for unknown in ("유리/1.png", "b.png", "odd/0.png"):
        assert spelled(unknown) == unknown
    assert Spelling({"a/é.png", parts("a/é.png"), "x"})("a\\é.png") == "a/é.png"
