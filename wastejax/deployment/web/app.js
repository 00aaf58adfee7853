// The page: a picture in, its class and bin out, in Korean or English. `labels.json` says whether a server answers
// or a model that came with the page.

const TEXTS = {
  en: {
    title: "Where does this go?",
    intro: "Show a piece of waste and see which bin it belongs in.",
    choose: "Choose a picture",
    camera: "Use the camera",
    hint: "or drop a picture here, or paste one",
    video: "Live picture of the camera",
    shoot: "Take the picture",
    close: "Close the camera",
    loading: "Loading the model …",
    ready: "Ready.",
    looking: "Looking …",
    confidence: "Confidence",
    bin: "Bin:",
    noBin: "no rule is known; ask your district",
    others: "Or else",
    unsure: "Not sure. Better ask a person, or take another picture: closer, and one thing only.",
    heatmap: "What speaks for this answer",
    picture: "Your picture",
    noCamera: "The camera cannot be used. Allow it in the browser, or choose a picture.",
    failed: "This picture cannot be read",
    busy: "Too many pictures are waiting. Try again in a moment.",
    noServer: "The server does not answer. Try again in a moment.",
    noModel: "The model cannot be loaded. Load the page again.",
    local: "Pictures stay in this browser; nothing is sent anywhere.",
    remote: "Pictures go to the server that this page came from; it keeps none.",
    region: "Rules for separate collection in",
    spoken: (name, percent, bin) => `${name}, ${percent}. Bin: ${bin}.`,
  },
  ko: {
    title: "어디에 버릴까요?",
    intro: "버릴 물건의 사진을 보여 주면 어느 수거함에 넣는지 알려 드립니다.",
    choose: "사진 고르기",
    camera: "카메라 사용",
    hint: "사진을 여기에 끌어 놓거나 붙여 넣어도 됩니다",
    video: "카메라 실시간 화면",
    shoot: "사진 찍기",
    close: "카메라 닫기",
    loading: "모델을 불러오는 중 …",
    ready: "준비되었습니다.",
    looking: "살펴보는 중 …",
    confidence: "확신도",
    bin: "수거함:",
    noBin: "알려진 규정이 없습니다. 구청에 문의하세요",
    others: "다른 가능성",
    unsure: "확실하지 않습니다. 사람에게 물어보거나, 물건 하나만 더 가까이에서 다시 찍어 주세요.",
    heatmap: "이 답의 근거가 된 부분",
    picture: "올린 사진",
    noCamera: "카메라를 쓸 수 없습니다. 브라우저에서 허용하거나 사진을 골라 주세요.",
    failed: "사진을 읽을 수 없습니다",
    busy: "기다리는 사진이 너무 많습니다. 잠시 뒤에 다시 해 주세요.",
    noServer: "서버가 응답하지 않습니다. 잠시 뒤에 다시 해 주세요.",
    noModel: "모델을 불러올 수 없습니다. 페이지를 새로 고쳐 주세요.",
    local: "사진은 이 브라우저 안에만 있으며 어디로도 보내지 않습니다.",
    remote: "사진은 이 페이지를 연 서버로만 보내며, 서버는 저장하지 않습니다.",
    region: "분리배출 기준:",
    spoken: (name, percent, bin) => `${name}, ${percent}. 수거함: ${bin}.`,
  },
};
const REGIONS = { "South Korea": { ko: "대한민국" } };

const find = (id) => document.getElementById(id);
let language = "en";
let labels = null; // of labels.json
let ask = null; // blob -> answer
let shown = null; // the last answer
let message = { key: "loading", detail: "", error: false };
let turn = 0; // of pictures: an answer that comes too late is not shown

function chooseLanguage(wanted) {
  language = wanted === "ko" ? "ko" : "en";
  document.documentElement.lang = language;
  try {
    localStorage.setItem("language", language);
  } catch { /* no storage: the choice lasts as long as the page */ }
  const texts = TEXTS[language];
  document.title = texts.title;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", texts[element.dataset.label]);
  }
  for (const element of document.querySelectorAll("[data-alt]")) element.alt = texts[element.dataset.alt];
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  if (labels) {
    find("privacy").textContent = labels.onnx ? texts.local : texts.remote;
    find("region").textContent = `${texts.region} ${REGIONS[labels.region]?.[language] ?? labels.region}`;
  }
  if (shown) showAnswer();
  else say(message.key, message.detail, message.error);
}

function say(key, detail = "", error = false) {
  message = { key, detail, error };
  find("status").textContent = TEXTS[language][key] + (detail ? ` (${detail})` : "");
  find("status").className = error ? "error" : "";
}

const percent = (p) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 }).format(p);

function showAnswer() {
  const texts = TEXTS[language];
  const [best, ...others] = shown.top;
  const entry = (name) => labels.classes.find((item) => item.name === name);
  const item = entry(best.class);
  const bin = labels.bins[best.bin];
  find("label").textContent = item[language];
  find("unsure").hidden = !shown.rejected;
  find("meter").value = best.probability;
  find("percent").textContent = percent(best.probability);
  find("bin").textContent = bin ? bin[language] : texts.noBin;
  find("advice").textContent = item[`advice_${language}`];
  find("bin-advice").textContent = bin ? bin[`advice_${language}`] : "";
  find("others").replaceChildren(...others.map((other) => {
    const line = document.createElement("li");
    line.textContent = `${entry(other.class)[language]} ${percent(other.probability)}`;
    return line;
  }));
  find("picture").alt = texts.picture;
  find("heatmap").hidden = !shown.heatmap;
  if (shown.heatmap) find("heatmap").querySelector("img").src = shown.heatmap;
  find("result").hidden = false;
  find("status").className = "spoken"; // the eye has the card below
  const said = texts.spoken(item[language], percent(best.probability), find("bin").textContent);
  find("status").textContent = shown.rejected ? `${texts.unsure} ${said}` : said;
}

async function look(blob) {
  if (!ask) return;
  const mine = ++turn;
  shown = null;
  find("result").hidden = true;
  say("looking");
  try {
    const answer = await ask(blob);
    if (mine !== turn) return;
    URL.revokeObjectURL(find("picture").src);
    find("picture").src = URL.createObjectURL(blob);
    shown = answer;
    showAnswer();
    find("label").focus();
  } catch (error) {
    if (mine === turn) say(error.key ?? "failed", error.key ? "" : error.reason ?? "", true);
  }
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
  if (!reply.ok) throw { reason: content.error };
  return content.answers[0];
}

/** Returns what asks the model that came with the page. */
async function localModel() {
  const { loadModel, interpret } = await import("./local.js");
  const compute = await loadModel(labels);
  return async (blob) => interpret(await compute(blob), labels);
}

async function start() {
  try {
    labels = await (await fetch("labels.json")).json();
    ask = labels.onnx ? await localModel() : askServer;
    message.key = "ready";
  } catch (error) {
    console.error(error);
    message = { key: "noModel", detail: "", error: true };
  }
  chooseLanguage(language);
}

let stream = null;

async function openCamera() {
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
  await look(blob);
}

const firstPicture = (list) => Array.from(list ?? []).find((file) => file.type.startsWith("image/"));

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => chooseLanguage(button.dataset.language));
}
find("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) look(file);
  event.target.value = ""; // so that the same file can be chosen again
});
find("open-camera").addEventListener("click", openCamera);
find("close-camera").addEventListener("click", () => {
  closeCamera();
  find("open-camera").focus();
});
find("shoot").addEventListener("click", shoot);
document.addEventListener("paste", (event) => {
  const file = firstPicture(event.clipboardData?.files);
  if (file) look(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", () => find("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave the page for the picture
  find("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) look(file);
});

let stored = null;
try {
  stored = localStorage.getItem("language");
} catch { /* no storage */ }
chooseLanguage(new URLSearchParams(location.search).get("lang") ?? stored ?? navigator.language.slice(0, 2));
start();
