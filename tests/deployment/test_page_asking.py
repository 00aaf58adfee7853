"""What the page asks a server for and what it makes of any reply, and that it opens one camera, in node."""

import pytest

ASKING = """
const { askPatiently, askServer } = await import(process.argv[1] + "/asking.js");
const { now, say, troubleOf } = await import(process.argv[1] + "/words.js");
now.labels = { heatmap: false };
const waits = [];
globalThis.setTimeout = (then, ms) => { waits.push(ms); queueMicrotask(then); };
const html = (status, headers = {}) => () => new Response("<html><h1>nginx</h1></html>", { status, headers });
const json = (status, content, headers = {}) => () => new Response(JSON.stringify(content), { status, headers });
const good = json(200, { answers: ["an answer"] });
const busy = json(503, { error: "busy" }, { "retry-after": "2" });
const reset = (control) => control.error(new TypeError("reset"));
const broken = () => new Response(new ReadableStream({ start: reset }));

async function asked(replies, wanted = null, image = new Blob(["image"])) {
  let count = 0;
  globalThis.fetch = async () => replies[Math.min(count++, replies.length - 1)]();
  waits.length = 0;
  const answer = await (wanted ? askPatiently(image, wanted) : askServer(image)).catch((error) => error);
  return { answer, count, waits: [...waits] };
}

const statuses = [200, 401, 404, 408, 413, 429, 500, 502, 503, 504];
const ours = [[400, "damaged"], [413, "too many pixels"], [415, "no image"], [403, "no"], [500, "failed"]];
const said = {};
for (const language of ["en", "de"]) {
  now.language = language;
  said[language] = [];
  const hear = async (reply) => said[language].push(troubleOf((await asked([reply])).answer));
  for (const status of statuses) await hear(html(status));
  for (const [status, error] of ours) await hear(json(status, { error }));
  await hear(broken);
  await hear(json(403, { message: "Forbidden" }));
}
const refused = () => { throw new TypeError("Failed to fetch"); };
const gone = { arrayBuffer: async () => { throw new Error("NotFoundError"); } };
const silent = [];
for (const image of [new Blob(["image"]), gone]) {
  silent.push(troubleOf((await asked([refused], null, image)).answer));
}
let looks = 0;
console.log(JSON.stringify({
  said,
  silent,
  answered: await asked([good]),
  later: await asked([busy, html(429), good], () => true),
  never: await asked([busy], () => true),
  longer: await asked([html(503, { "retry-after": "3600" })], () => true),
  unwanted: await asked([busy], () => looks++ < 1),
  other: await asked([html(502), good], () => true),
}));
"""
BUSY = "Too many images are waiting. Try again in a moment."
SILENT = "The server does not answer. Try again in a moment."


@pytest.fixture(scope="module")
def asked(node):
    return node(ASKING)


def test_what_a_proxy_says_in_html_is_no_fault_of_the_image(asked):
    assert asked["said"]["en"] == [
        "The server reports an error (HTTP 200)",
        "The server reports an error (HTTP 401)",
        "The server reports an error (HTTP 404)",
        "This image cannot be read (the upload took too long)",
        "This image cannot be read (too large)",
        BUSY,
        "The server reports an error (HTTP 500)",
        SILENT,
        BUSY,
        SILENT,
        "This image cannot be read (damaged)",
        "This image cannot be read (too many pixels)",
        "This image cannot be read (no image)",
        "The server reports an error (HTTP 403)",
        "The server reports an error (HTTP 500)",
        SILENT,
        "The server reports an error (HTTP 403)",
    ]
    assert asked["said"]["de"][1] == "Der Server meldet einen Fehler (HTTP 401)"
    assert asked["said"]["de"][4] == "Dieses Bild kann nicht gelesen werden (zu groß)"


def test_a_file_that_is_gone_is_no_fault_of_the_server(asked):
    assert asked["silent"] == [
        "Der Server antwortet nicht. Versuchen Sie es gleich noch einmal.",
        "Dieses Bild kann nicht gelesen werden (beschädigt oder in einem Format, das dieser Browser nicht kennt)",
    ]


def test_a_busy_server_is_asked_again_when_it_says_and_not_for_ever(asked):
    assert asked["answered"] == {"answer": "an answer", "count": 1, "waits": []}
    assert asked["later"] == {"answer": "an answer", "count": 3, "waits": [2000, 2000]}
    assert asked["never"]["answer"]["key"] == "busy"
    assert (asked["never"]["count"], asked["never"]["waits"]) == (4, [2000, 2000, 2000])
    assert (asked["longer"]["count"], asked["longer"]["answer"]["key"]) == (1, "busy")
    assert asked["unwanted"]["count"] == 2  # the reader has chosen other images meanwhile
    assert (asked["other"]["count"], asked["other"]["answer"]["key"]) == (1, "noServer")


FINDING = """
const { localModel } = await import(process.argv[1] + "/asking.js");
const { now } = await import(process.argv[1] + "/words.js");
globalThis.Worker = class {
  addEventListener(kind, then) { if (kind === "message") this.then = then; }
  postMessage({ id }) { queueMicrotask(() => this.then({ data: { id } })); }
};
Object.defineProperty(globalThis, "navigator", { value: {} });
const offers = [];
for (const [any_side, multilabel] of [[true, false], [false, false], [true, true]]) {
  now.labels = { onnx: { any_side }, multilabel };
  offers.push((await localModel(() => {})).findAll !== null);
}
console.log(JSON.stringify(offers));
"""


def test_several_objects_are_looked_for_with_one_class_each(node):
    assert node(FINDING) == [
        True,
        False,
        False,
    ]  # the last is a multi-label model, as `predict --regions` refuses


CAMERA = """
const { closeCamera, openCamera } = await import(process.argv[1] + "/camera.js");
const { now } = await import(process.argv[1] + "/words.js");
now.language = "en";
const style = { setProperty() {} };
const part = () => ({ textContent: "", setAttribute() {}, style, querySelector: () => part() });
const elements = {};
globalThis.document = {
  hidden: true,
  documentElement: {},
  getElementById: (id) => (elements[id] ??= { ...part(), scrollIntoView() {}, focus() {} }),
};
const made = [];
let allowed = true;
const mediaDevices = {
  async getUserMedia() {
    await new Promise((done) => setTimeout(done, 20)); // the reader is asked
    if (!allowed) throw new Error("not allowed");
    const track = new EventTarget();
    track.stop = () => { stream.active = false; };
    const stream = { active: true, getTracks: () => [track] };
    made.push(stream);
    return stream;
  },
};
Object.defineProperty(globalThis, "navigator", { value: { mediaDevices } });
let gone = 0;
const open = () => openCamera(async () => ({}), true, () => gone++);
const states = () => made.map(({ active }) => active);
const seen = [];
await Promise.all([open(), open()]);
await open();
seen.push(states(), elements.video.srcObject === made[0]);
closeCamera();
seen.push(states(), elements.camera.hidden);
await open(); // again, and then it is unplugged
made[1].active = false;
await open();
seen.push(states());
closeCamera();
allowed = false;
seen.push(await Promise.allSettled([open(), open()]).then((ends) => ends.map(({ status }) => status)));
allowed = true;
await open();
seen.push(states());
const end = (stream) => stream.getTracks()[0].dispatchEvent(new Event("ended"));
end(made[2]); // closed long ago
seen.push(gone, elements.camera.hidden);
end(made[3]);
seen.push(gone, elements.camera.hidden, elements.video.srcObject);
console.log(JSON.stringify(seen));
"""


def test_a_second_click_opens_no_second_camera_and_one_that_is_unplugged_is_closed(node):
    assert node(CAMERA) == [
        [True],
        True,
        [False],  # closed
        True,
        [False, False, True],
        ["rejected", "rejected"],
        [False, False, False, True],
        0,
        False,
        1,  # unplugged while it is open
        True,
        None,
    ]
