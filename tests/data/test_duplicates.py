import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from wastejax.data import duplicates
from wastejax.data.duplicates import comparing, group_duplicates, scan
from wastejax.data.duplicates.comparing import agreement
from wastejax.data.duplicates.scan_cache import ScanCache
from wastejax.data.sources import open_folder


def photo(seed: int, side: int = 256) -> Image.Image:
    """Something with structure at every scale, unlike any other seed."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side, 3))
    for size in (3, 6, 12, 24, 48):
        layer = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        image += np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC), float) / 5
    return Image.fromarray(image.astype(np.uint8))


def save(image: Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def groups_of(tmp_path: Path, images: list[Image.Image]) -> list[int]:
    for i, image in enumerate(images):
        save(image, tmp_path / "a" / f"{i:03d}.png")
    found = scan(open_folder(tmp_path))
    assert not found.bad
    return group_duplicates(found.phash, found.gray).tolist()


def test_changed_copies_are_one_group(tmp_path):
    original = photo(0)
    jpeg = io.BytesIO()
    original.save(jpeg, "JPEG", quality=30)
    copies = [
        original,
        Image.open(jpeg),
        original.resize((100, 100)),
        ImageEnhance.Brightness(original).enhance(0.8),
        ImageEnhance.Contrast(original).enhance(0.6),
        original.convert("L"),
        original.filter(ImageFilter.GaussianBlur(2)),
        original.crop((4, 4, 250, 252)),
    ]
    assert groups_of(tmp_path, copies + [photo(i) for i in range(1, 20)]) == [0] * 8 + list(range(1, 20))


def disc(gray: str, *holes: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((58, 58, 198, 198), fill=gray)
    for x, y in holes:
        draw.ellipse((x, y, x + 20, y + 20), fill="white")
    return image


def test_plain_drawings_are_not_joined_although_their_hashes_are(tmp_path):
    images = [disc("#606060"), disc("#303030", *((x, y) for x in (80, 118, 156) for y in (80, 118, 156)))]
    for i, image in enumerate(images):
        save(image, tmp_path / "a" / f"{i}.png")
    found = scan(open_folder(tmp_path))
    assert np.bitwise_count(found.phash[0] ^ found.phash[1]) <= 8
    assert group_duplicates(found.phash, found.gray).tolist() == [0, 1]


def small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX))


def test_flat_images_are_joined_only_where_equal(tmp_path):
    flat = [Image.new("RGB", (64, 64), (v, v, v)) for v in (10, 10, 120, 200, 200)]
    assert groups_of(tmp_path, flat) == [0, 0, 1, 2, 2]


def test_a_banner_does_not_hide_a_twin():
    """Stock images come scaled down above a banner with the agency's name."""
    original = photo(3)
    framed = Image.new("RGB", (256, 256), "black")
    framed.paste(original.resize((240, 240)), (8, 0))
    gray = np.stack([small(image) for image in (original, framed, photo(4))])
    forth, back, other = agreement(gray[[0, 1, 0]], gray[[1, 0, 2]])
    assert min(forth, back) > 0.8
    assert other < 0.5


def test_the_same_shape_in_another_gray_agrees_only_where_it_lies_the_same():
    """A darker copy of an image is a copy; a darker object somewhere else is another object."""
    light, dark = disc("#a0a0a0", (100, 100)), disc("#202020", (100, 100))
    moved = Image.new("RGB", (256, 256), "white")
    moved.paste(dark.resize((230, 230)), (20, 8))
    same_gray = Image.new("RGB", (256, 256), "white")
    same_gray.paste(light.resize((230, 230)), (20, 8))
    gray = np.stack([small(image) for image in (light, dark, moved, same_gray)])
    in_place, elsewhere, aligned = agreement(gray[[0, 0, 0]], gray[[1, 2, 3]])
    assert in_place > 0.95
    assert elsewhere == 0
    assert aligned > 0.8


def test_the_coarse_search_finds_the_best_window_of_every_scale_and_shift():
    rng = np.random.default_rng(3)
    a, b = (comparing._detail(rng.integers(0, 256, (5, 32, 32), np.uint8), radius=4) for _ in range(2))
    found = comparing._search_all_over(a, b)

    def sampled(image: np.ndarray, y: float, x: float, side: float) -> np.ndarray:
        rows, columns = (comparing._sampling(np.array(at), np.array(side), 16, 32) for at in (y, x))
        values = rows @ image @ columns.T
        return values / np.linalg.norm(values)

    for one, other, (score, y, x, side) in zip(a, b, found, strict=True):
        target = sampled(other, 16, 16, 0.8 * 32)
        best = max(
            (float((sampled(one, 16 + v, 16 + u, scale * 32 * 0.8) * target).sum()), 16 + v, 16 + u, scale)
            for scale in (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
            for v in (-4, -2, 0, 2, 4)
            for u in (-4, -2, 0, 2, 4)
            if max(abs(v), abs(u)) < (32 - scale * 32 * 0.8) / 2
        )
        assert (score, y, x, side) == pytest.approx((*best[:3], best[3] * 25.6), abs=1e-5)


def test_groups_are_transitive_and_numbered_by_first_appearance():
    gray = np.broadcast_to(np.arange(32 * 32).reshape(1, 32, 32) % 251, (5, 32, 32)).astype(np.uint8)
    chain = np.array([0xFFFF << 40, 0b0, 0b111111, 0b111111 << 6 | 0b111111, 0xFFFF << 20], np.uint64)
    # 1-2 and 2-3 are 6 bits apart, 1-3 are 12.
    assert group_duplicates(chain, gray, hamming=6).tolist() == [0, 1, 1, 1, 2]
    assert group_duplicates(chain, gray, hamming=5).tolist() == [0, 1, 2, 3, 4]
    assert group_duplicates(chain[:0], gray[:0]).tolist() == []


def test_hash_is_that_of_imagehash(tmp_path):
    import imagehash

    save(photo(5), tmp_path / "a" / "1.png")
    found = scan(open_folder(tmp_path))
    assert f"{found.phash[0]:016x}" == str(imagehash.phash(photo(5)))


def test_fifteen_thousand_images_take_seconds():
    rng = np.random.default_rng(0)
    phash = rng.integers(0, 2**64, 15_000, dtype=np.uint64)
    gray = rng.integers(0, 256, (15_000, 32, 32), dtype=np.uint8)
    phash[10_000:] = phash[:5_000]  # a third are copies, as in the household waste set
    gray[10_000:] = gray[:5_000]
    phash[9_000:10_000] = phash[:1_000] ^ np.uint64(0b1011)
    gray[9_000:10_000] = gray[:1_000] // 2 + 40
    start = time.monotonic()
    groups = group_duplicates(phash, gray)
    assert time.monotonic() - start < 30
    np.testing.assert_array_equal(groups[10_000:], groups[:5_000])
    np.testing.assert_array_equal(groups[9_000:10_000], groups[:1_000])
    assert groups.max() + 1 == 9_000


@pytest.fixture
def folder(tmp_path) -> Path:
    for i in range(6):
        save(photo(i, 64), tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    (tmp_path / "data" / "a" / "empty.jpg").touch()
    whole = io.BytesIO()
    photo(9).save(whole, "JPEG")
    (tmp_path / "data" / "a" / "half.jpg").write_bytes(whole.getvalue()[:2000])
    (tmp_path / "data" / "b" / "link.png").symlink_to(tmp_path / "gone.png")
    return tmp_path / "data"


def reads(monkeypatch) -> list[str]:
    """Returns a list that fills with the names of the files that a scan looks at."""
    seen: list[str] = []
    look = duplicates._look
    monkeypatch.setattr(duplicates, "_look", lambda read, i: (seen.append(read.paths[i]), look(read, i))[1])
    return seen


def test_unreadable_files_are_found_with_their_reasons(folder):
    source = open_folder(folder)
    found = scan(source)
    assert {source.names[i]: reason for i, reason in found.bad.items()} == {
        "a/empty.jpg": "empty file",
        "a/half.jpg": "truncated",
        "b/link.png": "cannot be read (No such file or directory)",
    }


def test_second_scan_reads_nothing_but_what_changed(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = scan(open_folder(folder), cache)
    seen = reads(monkeypatch)
    bad = {"a/empty.jpg", "a/half.jpg", "b/link.png"}
    second = scan(open_folder(folder), cache)
    assert set(seen) == bad  # they may have been mended meanwhile
    np.testing.assert_array_equal(first.phash, second.phash)
    np.testing.assert_array_equal(first.gray, second.gray)
    assert first.bad == second.bad

    seen.clear()
    save(photo(20, 70), folder / "b" / "1.png")
    save(photo(21, 64), folder / "b" / "new.png")
    third = scan(open_folder(folder), cache)
    assert set(seen) == bad | {"b/1.png", "b/new.png"}
    changed = open_folder(folder).names.index("b/1.png")
    assert third.phash[changed] != first.phash[open_folder(folder).names.index("b/1.png")]


def test_damaged_cache_is_made_anew(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    scan(open_folder(folder), cache)
    (file,) = cache.iterdir()
    for content in (b"", b"PK\x03\x04 rubbish", file.read_bytes()[:300]):
        file.write_bytes(content)
        seen = reads(monkeypatch)
        scan(open_folder(folder), cache)
        assert len(set(seen)) == 9
    assert len(list(cache.iterdir())) == 1


def test_what_a_killed_scan_has_seen_is_kept_and_nothing_written_twice(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(duplicates, "_ROWS_AT_ONCE", 2)
    look = duplicates._look

    def killed(read, index):
        if index >= 5:
            raise KeyboardInterrupt
        return look(read, index)

    monkeypatch.setattr(duplicates, "_look", killed)
    with pytest.raises(KeyboardInterrupt):
        scan(open_folder(folder), cache)
    monkeypatch.setattr(duplicates, "_look", look)
    seen = reads(monkeypatch)
    kept = []
    monkeypatch.setattr(ScanCache, "add", lambda self, looks: kept.extend(looks))
    whole = scan(open_folder(folder), cache)
    good = [name for i, name in enumerate(open_folder(folder).names) if i not in whole.bad]
    assert 0 < len(kept) < len(good) and len(seen) == len(kept) + len(whole.bad)
    plain = scan(open_folder(folder))
    np.testing.assert_array_equal(whole.phash, plain.phash)
    np.testing.assert_array_equal(whole.gray, plain.gray)


def test_progress_counts_to_the_end(folder):
    calls = []
    scan(open_folder(folder), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 9) for i in range(1, 10)]


@pytest.mark.real_data
def test_known_twins_and_look_alikes(real_data_dir):
    """Judged by eye on TrashNet; all of these pairs have hashes within 8 bits."""
    twins = [
        ("glass/glass115.jpg", "metal/metal91.jpg"),  # the same file
        ("paper/paper135.jpg", "paper/paper496.jpg"),  # taken again, from elsewhere
        ("paper/paper265.jpg", "paper/paper408.jpg"),
        ("metal/metal394.jpg", "metal/metal76.jpg"),
    ]
    others = [
        ("metal/metal178.jpg", "plastic/plastic10.jpg"),
        ("glass/glass127.jpg", "metal/metal159.jpg"),
        ("metal/metal214.jpg", "plastic/plastic10.jpg"),
    ]
    source = open_folder(real_data_dir / "trashnet")
    wanted = sorted({name for pair in twins + others for name in pair})
    source = source.select([source.names.index(name) for name in wanted])
    found = scan(source)
    groups = group_duplicates(found.phash, found.gray)
    for pairs, joined in ((twins, True), (others, False)):
        for a, b in pairs:
            i, j = source.names.index(a), source.names.index(b)
            assert np.bitwise_count(found.phash[i] ^ found.phash[j]) <= 8
            assert (groups[i] == groups[j]) == joined, (a, b)
