"""The pages of what is felt and of fewer bits are Markdown, of whatever was measured."""

from experiments import felt, fewer_bits

ABOUT = {
    "command": "c",
    "commit": "abc",
    "date": "2026-11-30",
    "hardware": "two cores",
    "load": 0.1,
    "earlier": "def",
}


def test_the_page_of_what_is_felt_has_a_row_for_each_part():
    engine = {"seconds": 2.0, "processor": 1.0, "mib": 300.0, "images_per_second": 50.0}
    part = {"earlier": engine | {"seconds": 4.0}, "jax": engine, "onnxruntime": engine | {"seconds": 0.5}}
    lines = felt.report({"first": part, "measured": {"first": ABOUT | {"earlier": "def"}}}).splitlines()
    assert "| cold process to printed answer | 4 s | 2 s | 0.5 s | 0.12 | 0.25 | at most 0.45 |" in lines
    assert lines[3] == "| --- " * 7 + "|" and lines[2].count("|") == 8


def test_the_page_of_fewer_bits_has_a_row_for_each_form():
    names = (
        "bytes",
        "agreement",
        "largest_difference",
        "top1",
        "least_ms",
        "ratio_of_least",
        "ratio_of_medians",
    )
    row = dict.fromkeys(names, 1.0)
    result = ABOUT | {
        "forms": {"float32": row},
        "instructions": ["avx2"],
        "versions": {"onnxruntime": "1"},
        "calibrated_with": 1,
        "images": 2,
    }
    assert "\n| --- |" in fewer_bits.report(result) and "| float32 | " in fewer_bits.report(result)
