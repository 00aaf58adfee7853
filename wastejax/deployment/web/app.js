// The page: images in, their bins and classes out, in one of five languages. `labels.json` says whether a server answers
// or a model that came with the page.

import { seeing } from "./answers.js";
import { askPatiently, askServer, localModel } from "./asking.js";
import { closeCamera, openCamera, showLive, takePhoto } from "./camera.js";
import { chip, fill, newCard, spoken, summarize, wordsOf } from "./cards.js";
import { drawBoxes, drawHeatMap } from "./drawings.js";
import { droppedFiles } from "./drop.js";
import { earlier, forget, keep } from "./history.js";
import { keepOffline } from "./offline.js";
import { languageOf, now, region, say, time, translate, troubleOf } from "./words.js";

const find = (id) => document.getElementById(id);
let ask = null; // blob or bitmap, whether the answer is still wanted -> answer
let findAll = null; // blob -> the objects in it; null where nothing can say
let stop = () => {}; // ends the searches of `findAll` that are under way
let entries = []; // what is shown: { name, url, answer, seen } or { name, url, error }, with their cards
let several = false; // whether the files under way are more than one
let message = { key: "loading", detail: "", error: false };
let turn = 0; // of choices: an answer that comes too late is not shown

function chooseLanguage(wanted) {
  now.language = languageOf(wanted);
  document.documentElement.lang = now.language;
  document.title = say().title;
  translate(document);
  find("language").value = now.language;
  if (now.labels) {
    find("privacy").textContent = now.labels.onnx ? say().local : now.labels.collects ? say().collected : say().remote;
    find("region").textContent = `${say().region} ${region()}`;
    showLive();
    showHistory();
  }
  for (const entry of entries) fill(entry, several);
  showSummary();
  showStatus();
}

/** Keeps what the reader chose; not the language of a link, which is for one visit. */
function rememberLanguage() {
  try {
    localStorage.setItem("language", now.language);
  } catch { /* no storage: the choice lasts as long as the page */ }
}

/** Shows a text with a detail or, as the detail of "failed", why an image has no answer. */
function tell(key, detail = "", error = false) {
  message = { key, detail, error };
  showStatus();
}

/** Says how things stand; a single answer is only spoken, since the eye has its card. */
function showStatus() {
  const texts = say();
  const single = message.key === "shown" && !several;
  find("status").className = single ? "spoken" : message.error ? "error" : "";
  if (single) {
    find("status").textContent = spoken(entries[0]);
  } else if (message.key === "shown") {
    find("status").textContent = texts.answered(entries.filter((entry) => entry.answer).length, entries.length);
  } else if (typeof message.detail !== "string") {
    find("status").textContent = troubleOf(message.detail);
  } else {
    find("status").textContent = texts[message.key] + (message.detail ? ` (${message.detail})` : "");
  }
}

/** Of several images: how many go where. */
function showSummary() {
  find("summary").hidden = !several || !entries.length;
  find("summary").replaceChildren(...(several ? summarize(entries) : []).map(({ head, bin, count }) => {
    const line = chip(head, bin);
    line.append(` × ${count}`);
    return line;
  }));
}

function show(entry) {
  entry.url = URL.createObjectURL(entry.blob);
  entries.push(entry);
  find("results").append(newCard(entry, several, findAll && (() => lookCloser(entry))));
  showSummary();
  if (entries.length === 1) entry.card.querySelector(".bin").focus();
}

/**
 * Draws what speaks for an answer below it, where the model came with the page; a server has drawn it. The answer stands
 * without the drawing too.
 */
async function explain(entry) {
  const mine = turn;
  const { blob, answer } = entry;
  const { map, top } = answer;
  if (!map || answer.rejected) return;
  const index = now.labels.classes.findIndex((item) => item.name === top[0].class);
  const drawn = await drawHeatMap(blob, map, index, now.labels).catch(() => null);
  if (!drawn || mine !== turn) return;
  answer.heatmap = URL.createObjectURL(drawn);
  fill(entry, several);
}

/** Looks for several objects in an image and shows each with its bin. */
async function lookCloser(entry) {
  if (entry.searched) return; // a double click
  const mine = turn;
  entry.searched = true;
  tell("looking");
  let found;
  try {
    found = await findAll(entry.blob, (done, all) => mine === turn && tell("looking", `${done}/${all}`));
  } catch (error) {
    entry.searched = false;
    if (mine === turn) tell("failed", error, true);
    return;
  }
  if (mine !== turn) return;
  entry.regions = found.map(({ index, ...rest }) => ({ ...rest, class: now.labels.classes[index].name, bin: now.labels.classes[index].bin }));
  const colored = entry.regions.map(({ box, bin }) => ({ box, bin: now.labels.bins[bin] ?? null }));
  const boxes = await drawBoxes(entry.blob, colored).catch(() => null); // the list stands without them
  if (mine !== turn) return;
  if (boxes) {
    URL.revokeObjectURL(entry.url);
    entry.url = URL.createObjectURL(boxes);
    entry.unseen = false;
  }
  fill(entry, several);
  tell("shown");
  entry.card.querySelector(".found").focus();
}

function clear() {
  for (const { url, answer } of entries) for (const one of [url, answer?.heatmap ?? ""]) URL.revokeObjectURL(one);
  entries = [];
  find("results").replaceChildren();
  showSummary();
}

/** Answers every file, one after the other; of a single one that has no answer the status says why. */
async function look(blobs) {
  if (!blobs.length) return;
  const mine = ++turn;
  stop(); // a new image need not wait for the objects of one that is gone
  clear();
  several = blobs.length > 1;
  find("results").classList.toggle("several", several);
  await starting; // what is chosen early waits for the model
  if (!ask || mine !== turn) return;
  for (const [i, blob] of blobs.entries()) {
    tell("looking", several ? `${i + 1}/${blobs.length}` : "");
    const entry = { blob, name: blob.name ?? "" };
    try {
      const seen = seeing(blob).catch(() => ""); // a server reads more than the browser does
      entry.answer = await ask(blob, () => mine === turn);
      entry.seen = await seen;
    } catch (error) {
      if (mine !== turn) return;
      if (!several) return tell("failed", error, true);
      entry.error = error; // the others may have an answer all the same
    }
    if (mine !== turn) return;
    show(entry);
    if (entry.answer) await explain(entry);
    if (entry.answer) await keep(blob, entry.answer, entry.seen).catch(() => {}); // nothing is kept in private windows
    if (mine !== turn) return;
  }
  tell("shown");
  await showHistory();
}

async function showHistory() {
  const kept = await earlier().catch(() => []);
  find("history").hidden = !kept.length;
  for (const image of find("earlier").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  find("earlier").replaceChildren(...kept.map((entry) => {
    const { head, bin, line } = wordsOf(entry);
    const row = chip(head, bin);
    const image = document.createElement("img");
    if (entry.image) image.src = URL.createObjectURL(entry.image);
    image.alt = "";
    const about = document.createElement("span");
    about.textContent = [line, time(entry.time)].filter(Boolean).join(" · ");
    row.prepend(image);
    row.append(about);
    return row;
  }));
}

function showProgress(loaded, total) {
  find("progress").hidden = false;
  if (total) find("progress").value = loaded / total;
  const mb = (bytes) => (bytes / 1e6).toFixed(0);
  tell("loading", total ? `${mb(loaded)}/${mb(total)} MB` : `${mb(loaded)} MB`);
}

async function start() {
  try {
    now.labels = await (await fetch("labels.json")).json();
    ({ ask, findAll, stop } = now.labels.onnx ? await localModel(showProgress) : { ask: askPatiently, findAll, stop });
    message = { key: "ready", detail: "", error: false };
  } catch (error) {
    console.error(error);
    message = { key: "noModel", detail: "", error: true };
  }
  find("progress").hidden = true;
  chooseLanguage(now.language);
  await keepOffline((goOver) => {
    find("update").hidden = false;
    find("reload").onclick = goOver;
  }).catch(() => {}); // not in every private window
}

async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) return find("capture").click(); // over plain http
  await starting;
  if (!ask) return;
  try {
    await openCamera(now.labels.onnx ? ask : (image) => askServer(image, false), Boolean(now.labels.onnx), loseCamera);
  } catch {
    tell("noCamera", "", true);
  }
}

function loseCamera() {
  tell("noCamera", "", true);
  if (find("camera").contains(document.activeElement)) find("open-camera").focus(); // the buttons are gone
}

async function shoot() {
  const blob = await takePhoto();
  if (!blob) return;
  closeCamera();
  await look([blob]);
}

find("language").addEventListener("change", (event) => {
  chooseLanguage(event.target.value);
  rememberLanguage();
});
for (const id of ["file", "capture"]) {
  find(id).addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // so that the same file can be chosen again
    look(files);
  });
}
find("open-camera").addEventListener("click", startCamera);
find("close-camera").addEventListener("click", () => {
  closeCamera();
  find("open-camera").focus();
});
find("shoot").addEventListener("click", shoot);
find("clear").addEventListener("click", async () => {
  await forget();
  await showHistory();
  tell("cleared");
  find("file").focus(); // the button is gone
});
document.addEventListener("paste", (event) => {
  look(Array.from(event.clipboardData?.files ?? []).filter((file) => file.type.startsWith("image/")));
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", () => find("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave the page for the image
  find("drop").classList.remove("over");
  droppedFiles(event.dataTransfer).then(look, (error) => tell("failed", error, true));
});

let stored = null;
try {
  stored = localStorage.getItem("language");
} catch { /* no storage */ }
chooseLanguage(new URLSearchParams(location.search).get("lang") ?? stored ?? navigator.language);
const starting = start();
