// The page: images in, their bins and classes out, in one of five languages. `labels.json` says whether a server answers
// or a model that came with the page.

import { REGIONS, TEXTS } from "./texts.js";

const find = (id) => document.getElementById(id);
let language = "en";
let labels = null; // of labels.json
let ask = null; // blob -> answer
let entries = []; // what is shown: { name, url, answer } or { name, url, error }, with their cards
let several = false; // whether the files under way are more than one
let message = { key: "loading", detail: "", error: false };
let turn = 0; // of choices: an answer that comes too late is not shown

function chooseLanguage(wanted) {
  language = Object.hasOwn(TEXTS, wanted) ? wanted : "en";
  document.documentElement.lang = language;
  try {
    localStorage.setItem("language", language);
  } catch { /* no storage: the choice lasts as long as the page */ }
  document.title = TEXTS[language].title;
  translate(document);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  if (labels) {
    const texts = TEXTS[language];
    find("privacy").textContent = labels.onnx ? texts.local : texts.remote;
    find("region").textContent = `${texts.region} ${REGIONS[labels.region]?.[language] ?? labels.region}`;
  }
  for (const entry of entries) fill(entry);
  showStatus();
}

/** Sets the texts, names and alternatives that elements below `root` ask for. */
function translate(root) {
  const texts = TEXTS[language];
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", texts[element.dataset.label]);
  }
  for (const element of root.querySelectorAll("[data-alt]")) element.alt = texts[element.dataset.alt];
}

function say(key, detail = "", error = false) {
  message = { key, detail, error };
  showStatus();
}

/** Says how things stand; a single answer is only spoken, since the eye has its card. */
function showStatus() {
  const texts = TEXTS[language];
  const single = message.key === "shown" && !several;
  find("status").className = single ? "spoken" : message.error ? "error" : "";
  if (single) {
    find("status").textContent = spoken(entries[0].answer);
  } else if (message.key === "shown") {
    find("status").textContent = texts.answered(entries.filter((entry) => entry.answer).length, entries.length);
  } else {
    const detail = typeof message.detail === "string" ? message.detail : reasonOf(message.detail);
    find("status").textContent = texts[message.key] + (detail ? ` (${detail})` : "");
  }
}

const percent = (p) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 }).format(p);
const itemOf = (guess) => labels.classes.find((item) => item.name === guess.class);
const binOf = (guess) => labels.bins[guess.bin]?.[language] ?? "";

function spoken({ rejected, top }) {
  const texts = TEXTS[language];
  if (rejected) return `${texts.unsure}. ${texts.unsureAdvice}`;
  return texts.spoken(binOf(top[0]) || texts.noBin, itemOf(top[0])[language], percent(top[0].probability));
}

/** Why an image got no answer, in the reader's language. */
function reasonOf({ status, reason }) {
  const known = TEXTS[language].reasons;
  return language === "en" && status ? reason : known[status] ?? known[reason] ?? known.unreadable;
}

/** Writes what is known of an image into its card: the bin first, then the class and one advice. */
function fill({ card, name, url, answer, error }) {
  const texts = TEXTS[language];
  const part = (selector) => card.querySelector(selector);
  translate(card);
  part(".picture").src = url;
  part(".picture").alt = several ? name : texts.picture;
  part(".name").textContent = name;
  part(".name").hidden = !several;
  for (const selector of [".unsure", ".class", ".advice", ".others-title", ".others", ".heatmap"]) {
    part(selector).hidden = true;
  }
  part(".picture").hidden = Boolean(error);
  card.classList.toggle("doubt", Boolean(error || answer.rejected));
  if (error) {
    part(".bin").textContent = `${texts.failed} (${reasonOf(error)})`;
    return;
  }
  const [best, ...others] = answer.top;
  if (answer.rejected) {
    part(".bin").textContent = texts.unsure;
    part(".unsure").hidden = false;
    list(card, texts.candidates, answer.top);
    return;
  }
  const item = itemOf(best);
  const bin = binOf(best);
  part(".bin").textContent = bin || item[language];
  part(".label").textContent = bin ? item[language] : "";
  part("meter").value = best.probability;
  part(".percent").textContent = percent(best.probability);
  part(".class").hidden = false;
  part(".advice").textContent = bin ? item[`advice_${language}`] || labels.bins[best.bin][`advice_${language}`] : texts.noBin;
  part(".advice").hidden = false;
  list(card, texts.others, others);
  part(".heatmap").hidden = !answer.heatmap;
  if (answer.heatmap) part(".heatmap img").src = answer.heatmap;
}

function list(card, title, guesses) {
  card.querySelector(".others-title").textContent = title;
  card.querySelector(".others-title").hidden = card.querySelector(".others").hidden = !guesses.length;
  card.querySelector(".others").replaceChildren(...guesses.map((guess) => {
    const line = document.createElement("li");
    const bin = binOf(guess);
    line.textContent = `${itemOf(guess)[language]} ${percent(guess.probability)}${bin ? ` → ${bin}` : ""}`;
    return line;
  }));
}

function show(entry) {
  entry.card = find("card").content.firstElementChild.cloneNode(true);
  entry.url = URL.createObjectURL(entry.blob);
  entries.push(entry);
  fill(entry);
  find("results").append(entry.card);
  if (entries.length === 1) entry.card.querySelector(".bin").focus();
}

function clear() {
  for (const entry of entries) URL.revokeObjectURL(entry.url);
  entries = [];
  find("results").replaceChildren();
}

/** Answers every file, one after the other; of a single one that cannot be read the status says why. */
async function look(blobs) {
  if (!blobs.length) return;
  const mine = ++turn;
  clear();
  several = blobs.length > 1;
  await starting; // what is chosen early waits for the model
  if (!ask || mine !== turn) return;
  for (const [i, blob] of blobs.entries()) {
    say("looking", several ? `${i + 1}/${blobs.length}` : "");
    const entry = { blob, name: blob.name ?? "" };
    try {
      entry.answer = await ask(blob);
    } catch (error) {
      if (mine !== turn) return;
      if (error.key) return say(error.key, "", true); // not this image's fault
      if (!several) return say("failed", error, true);
      entry.error = error;
    }
    if (mine !== turn) return;
    show(entry);
  }
  say("shown");
}

/** Asks the server that the page came from. */
async function askServer(blob) {
  let reply;
  try {
    reply = await fetch(`predict?heatmap=${Number(labels.heatmap)}`, { method: "POST", body: blob });
  } catch {
    throw { key: "noServer" };
  }
  if (reply.status === 503) throw { key: "busy" };
  const content = await reply.json();
  if (!reply.ok) throw { status: reply.status, reason: content.error };
  return content.answers[0];
}

/** Returns what asks the model that came with the page. */
async function localModel() {
  const { loadModel, interpret } = await import("./local.js");
  const bar = find("progress");
  bar.hidden = false;
  const compute = await loadModel(labels, (loaded, total) => {
    if (total) bar.value = loaded / total;
    const mb = (bytes) => (bytes / 1e6).toFixed(0);
    say("loading", total ? `${mb(loaded)}/${mb(total)} MB` : `${mb(loaded)} MB`);
  });
  return async (blob) => interpret(await compute(blob), labels);
}

async function start() {
  try {
    labels = await (await fetch("labels.json")).json();
    ask = labels.onnx ? await localModel() : askServer;
    message = { key: "ready", detail: "", error: false };
  } catch (error) {
    console.error(error);
    message = { key: "noModel", detail: "", error: true };
  }
  find("progress").hidden = true;
  chooseLanguage(language);
}

let stream = null;

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) return find("capture").click(); // over plain http
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" } } });
  } catch {
    return say("noCamera", "", true);
  }
  find("video").srcObject = stream;
  find("camera").hidden = false;
  find("shoot").focus();
}

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("video").srcObject = null;
  find("camera").hidden = true;
}

async function shoot() {
  const video = find("video");
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  closeCamera();
  await look([blob]);
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => chooseLanguage(button.dataset.language));
}
for (const id of ["file", "capture"]) {
  find(id).addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // so that the same file can be chosen again
    look(files);
  });
}
find("open-camera").addEventListener("click", openCamera);
find("close-camera").addEventListener("click", () => {
  closeCamera();
  find("open-camera").focus();
});
find("shoot").addEventListener("click", shoot);
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
  look([...event.dataTransfer.files]);
});

let stored = null;
try {
  stored = localStorage.getItem("language");
} catch { /* no storage */ }
chooseLanguage(new URLSearchParams(location.search).get("lang") ?? stored ?? navigator.language.slice(0, 2));
const starting = start();
