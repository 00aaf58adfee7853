"""Modules of the page by themselves, in node: searches, versions, drops, names of languages and databases."""

import json
from itertools import product

from wastejax.deployment import regions

SIDES = """
const { shownSides } = await import(process.argv[1] + "/regions.js");
const { sides, scales, sizes } = JSON.parse(process.argv[2]);
const found = sides.flatMap(([width, height]) => scales.flatMap((times) => sizes.map((size) =>
  shownSides({ width, height }, times, size))));
console.log(JSON.stringify(found));
"""


def test_the_network_is_shown_the_sides_that_python_shows_it(node):
    sides = [(640, 480), (1, 3000), (3000, 1), *((w, 3 * w // 4) for w in range(4, 400))]
    sides += [(w, h) for w in range(5, 4100, 97) for h in range(7, 4100, 89)]
    scales, sizes = (4.0, 3.0, 1.3), (224, 192)
    found = node(SIDES, json.dumps({"sides": sides, "scales": scales, "sizes": sizes}))
    assert found[0] == [896, 640]  # 672, halfway between 640 and 704: the even multiple
    expected = [regions.shown_sides(*side, s, size) for side, s, size in product(sides, scales, sizes)]
    assert [tuple(one) for one in found] == expected


SEARCH = """
const { findRegions } = await import(process.argv[1] + "/regions.js");
globalThis.OffscreenCanvas = class {
  constructor(width, height) { Object.assign(this, { width, height }); }
  getContext() {
    const uneven = (length) => Uint8ClampedArray.from({ length }, (_, i) => 90 * (i % 3));
    return { fillRect() {}, drawImage() {}, getImageData: (x, y, w, h) => ({ data: uneven(4 * w * h) }) };
  }
};
const settings = { scales: [3], levels: [0.5], prominence: 0.4, margin: 0.1, growth: 1, overlap: 0.2, least: 0 };
const data = new Float32Array(2 * 36);
for (const p of [0, 2, 4, 12, 14, 16, 24, 26, 28]) data[2 * p] = 9; // nine objects, apart
let crops = 0;
const network = { // like ONNX Runtime, it is never done later than at once
  classMap: async () => ({ data, height: 6, width: 6, classes: 2 }),
  probabilities: async () => { crops++; return [1, 0]; },
};
const heard = [];
const { port1, port2 } = new MessageChannel();
port1.onmessage = () => heard.push(crops);
const find = (progress, wanted) => findRegions({ width: 60, height: 60 }, network, 8, settings, progress, wanted);
const found = await find(() => port2.postMessage(0));
const all = crops;
crops = 0;
const stopped = await find(() => {}, () => crops < 3).catch((error) => error);
port1.close();
const early = heard.filter((at) => at < all).length;
console.log(JSON.stringify({ found: found.length, all, early, crops, stopped }));
"""


def test_a_search_for_objects_leaves_room_for_other_images_and_can_be_stopped(node):
    seen = node(SEARCH)
    assert seen["found"] == seen["all"] == 9
    assert seen["early"] > 5  # messages that came while it went on
    assert (seen["crops"], seen["stopped"]) == (3, {"reason": "stopped"})


def test_an_object_is_found_in_a_long_strip(node):
    """As Python's `candidates` does: the strip is itself lower than the share of its length that is too little."""
    column = SEARCH.replace("[0, 2, 4, 12, 14, 16, 24, 26, 28]", "[2, 8, 14, 20, 26, 32]")
    strip = column.replace("{ width: 60, height: 60 }", "{ width: 1200, height: 30 }")
    assert strip.count("1200") == 1 and node(strip)["found"] == 1


WORKER = """
const { localModel } = await import(process.argv[1] + "/asking.js");
const { now } = await import(process.argv[1] + "/words.js");
const sent = [];
globalThis.Worker = class {
  addEventListener(kind, then) { if (kind === "message") this.then = then; }
  postMessage(content) {
    sent.push(content);
    if (content.id) queueMicrotask(() => this.then({ data: { id: content.id } }));
  }
};
const ours = "file://" + process.argv[1] + "/service-worker.js";
const serviceWorker = {};
Object.defineProperty(globalThis, "navigator", { value: { serviceWorker } });
now.labels = { onnx: { any_side: true } };
for (const controller of [null, { scriptURL: "file:///service-worker.js" }, { scriptURL: ours }]) {
  serviceWorker.controller = controller;
  (await localModel(() => {})).stop();
}
console.log(JSON.stringify(sent.map(({ kept, stop }) => stop ? "stop" : kept)));
"""


def test_the_service_worker_of_another_site_on_the_host_is_not_ours_and_searches_are_stopped(node):
    assert node(WORKER) == [False, "stop", False, "stop", True, "stop"]


OFFLINE = """
const { keepOffline } = await import(process.argv[1] + "/offline.js");
const ours = "file://" + process.argv[1] + "/service-worker.js";
globalThis.location = { reload: () => said.push("reload") };
let said;
async function visit({ state, taken, controller = { scriptURL: ours } }) {
  said = [];
  const waiting = { state, postMessage: (what) => said.push(what) };
  const serviceWorker = new EventTarget();
  serviceWorker.register = async () => ({ waiting, addEventListener() {} });
  serviceWorker.controller = controller;
  Object.defineProperty(globalThis, "navigator", { value: { serviceWorker }, configurable: true });
  let goOver = null;
  await keepOffline((how) => { goOver = how; });
  if (!goOver) return "no offer";
  if (taken) serviceWorker.controller = waiting;
  goOver();
  serviceWorker.dispatchEvent(new Event("controllerchange"));
  return said;
}
console.log(JSON.stringify([
  await visit({ state: "installed" }),
  await visit({ state: "activated" }),
  await visit({ state: "activating", taken: true }),
  await visit({ state: "installed", controller: { scriptURL: "file:///service-worker.js" } }),
]));
"""


def test_a_new_version_is_gone_over_to_also_where_another_tab_has_done_so(node):
    one, later, meanwhile, foreign = node(OFFLINE)
    assert one == ["take over", "reload"]
    assert later[0] == meanwhile[0] == "reload"
    assert foreign == "no offer"  # the first visit, beside another site's page


DROPS = """
const { droppedFiles } = await import(process.argv[1] + "/drop.js");
const file = (name, type = "image/png") => ({ isDirectory: false, name, file: (done) => done({ name, type }) });
const folder = (name, ...entries) => ({
  isDirectory: true,
  name,
  createReader: () => ({ readEntries: (done) => done(entries.splice(0, 2)) }), // in parts
});
const item = (entry) => ({ kind: "file", getAsFile: () => ({ name: entry.name }), webkitGetAsEntry: () => entry });
const text = { kind: "string", getAsFile: () => null, webkitGetAsEntry: () => null };
const made = { kind: "file", getAsFile: () => ({ name: "script.png" }), webkitGetAsEntry: () => null };
const dropped = async (...items) => {
  const files = await droppedFiles({ items }).catch((error) => error);
  return Array.isArray(files) ? files.map(({ name }) => name) : files;
};
const deeper = folder("b", file("b.png"));
const photos = folder("photos", file("c.png"), file("a.txt", "text/plain"), file(".b.png"), deeper, file("a.png"));
console.log(JSON.stringify([
  await dropped(text),
  await dropped(item(file("one.tiff")), made),
  await dropped(item(photos), item(file("two.png"))),
  await dropped(item(folder("empty", file("a.txt", "text/plain")))),
  await dropped(item(folder("empty")), item(file("none.txt", "text/plain"))),
]));
"""


def test_a_folder_that_is_dropped_stands_for_the_images_in_it(node):
    assert node(DROPS) == [
        [],
        ["one.tiff", "script.png"],
        ["a.png", "b.png", "c.png", "two.png"],
        {"reason": "folder"},
        ["none.txt"],  # of which the page says that it cannot be read
    ]


NAMES = """
const { nameAt } = await import(process.argv[1] + "/history.js");
const { languageOf } = await import(process.argv[1] + "/words.js");
const tags = ["de", "de-AT", "ko_KR", "FR", "kok-IN", "jam", "nl", ""];
console.log(JSON.stringify([tags.map(languageOf), ["/", "/fr/", "/kr/"].map(nameAt)]));
"""


def test_a_language_goes_by_the_first_part_of_its_tag_and_a_history_by_the_place_of_its_page(node):
    languages, databases = node(NAMES)
    assert languages == ["de", "de", "ko", "fr", "en", "en", "en", "en"]
    assert databases == ["wastejax", "wastejax /fr/", "wastejax /kr/"]
