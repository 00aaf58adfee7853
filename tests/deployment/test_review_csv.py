"""The review page reads the corrections that Python reads, in node."""

import re
from pathlib import Path

import pytest

from wastejax.data.corrections import COLUMNS
from wastejax.data.formats.csv_file import csv_reader
from wastejax.evaluation.report import review

PAGE = Path(review.__file__).with_name("templates") / review.NAME
SCRIPT = """
const [source, ...files] = process.argv.slice(2);
const read = new Function("bytes", `${source}; return parse(decoded(bytes));`);
console.log(JSON.stringify(files.map((file) => read(Uint8Array.from(Buffer.from(file, "hex")).buffer))));
"""
TABLES = [
    "file,label,old_label,note\r\na.jpg,glass,paper,\r\n",
    "File;Label;Old_Label;note\r\na.jpg;glass;paper;one, two\r\n",
    "file\tlabel\na.jpg\tglass\n",
    "file|label\na.jpg|glass\n",
    " file , LABEL, note\na.jpg, glass, checked\n",
    'file, label\na.jpg, "glass, brown"\n',
    'file,label\n"x, ""y"".png",drop\nz"1".png,"two\nlines"\n',
    "file,label\r\ra.jpg,glass\r",
    "label,file\n\nglass, a.jpg\n",
    "file,label\n종이.jpg,glass\n",
]


def functions(*names: str) -> str:
    """Those functions of the page, and the constants that they need."""
    page = PAGE.read_text(encoding="utf-8")
    found = [re.search(rf"^function {name}\(.*?^\}}", page, re.MULTILINE | re.DOTALL)[0] for name in names]
    separators = re.search(r'SEPARATORS = "[^"]+"', page)[0]
    return "\n".join([f"const {separators};", *found])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_page_reads_every_table_of_corrections_that_python_reads(node, encoding):
    contents = [table.encode(encoding) for table in TABLES]
    found = node(SCRIPT, functions("decoded", "parse"), *(content.hex() for content in contents))
    for content, (head, *body) in zip(contents, found, strict=True):
        reader = csv_reader(content, COLUMNS)
        assert head == list(reader.fieldnames)
        assert [dict(zip(head, row, strict=True)) for row in body] == list(reader)
