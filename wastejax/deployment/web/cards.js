// The card of an image: its bin with color and sign, the class below, one advice; or that it is not sure, and why.

import { reasonOf, verdict } from "./answers.js";
import { shareImage } from "./share.js";
import { paint } from "./signs.js";
import { adviceOf, binName, binOf, capital, className, percent, say, translate, troubleOf } from "./words.js";

const OPTIONAL = [".why", ".unsure", ".class", ".advice", ".others-title", ".others", ".heatmap", ".share", ".closer", ".found", ".regions"];

/** What an answer says in a few words: { head, bin, line, advice, why }, as far as it says any. */
export function wordsOf({ answer, seen }) {
  const texts = say();
  const { kind, bin, bins, probability, candidates } = verdict(answer);
  if (kind === "nothing") {
    const names = candidates.map((guess) => className(guess.class));
    const why = {
      dark: texts.dark,
      blank: texts.blank,
      likely: texts.likely(names[0]),
      alike: texts.alike(names[0], names[1]),
      strange: texts.strange,
    }[reasonOf(answer, seen)];
    return { head: texts.unsure, bin: null, line: "", probability, advice: "", why };
  }
  if (kind === "several") {
    const names = candidates.map((guess) => className(guess.class)).join(", ");
    const head = bins.map((name) => capital(binName(name))).join(" + ");
    const single = bins.length === 1 ? bins[0] : "";
    const advice = bins.length ? single && adviceOf(candidates.length === 1 ? candidates[0].class : "", single) : texts.noBin;
    return { head: head || capital(names), bin: binOf(single) ?? null, line: head && names, probability, advice, why: "" };
  }
  const best = candidates[0].class;
  const line = kind === "class" ? className(best) : probably(candidates);
  const advice = binOf(bin) ? adviceOf(kind === "class" ? best : "", bin) : texts.noBin;
  const head = capital(binName(bin) || line);
  return { head, bin: binOf(bin) ?? null, line: binName(bin) ? line : "", probability, advice, why: "" };
}

function probably(candidates) {
  const names = candidates.slice(0, 2).map((guess) => className(guess.class));
  return names.length > 1 ? say().probably(names[0], names[1]) : names[0];
}

/** What is said aloud of a single answer. */
export function spoken(entry) {
  const { head, line, probability, why } = wordsOf(entry);
  if (why) return `${head}. ${why} ${say().unsureAdvice}`;
  return line ? say().spoken(head, line, percent(probability)) : `${head}, ${percent(probability)}.`;
}

/**
 * Makes the card of an entry: { name, url, blob, answer, seen } or { name, url, blob, error }. `lookCloser` looks for
 * several objects and leaves them as the entry's `regions`; null where nothing can.
 */
export function newCard(entry, several, lookCloser) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  card.querySelector(".share").addEventListener("click", () => shareImage(entry.blob, wordsOf(entry)));
  card.querySelector(".closer").addEventListener("click", lookCloser);
  card.querySelector(".image").addEventListener("error", ({ target }) => {
    entry.unseen = target.hidden = true; // a server reads more than the browser does
  });
  entry.closer = Boolean(lookCloser);
  entry.card = card;
  fill(entry, several);
  return card;
}

/** Writes what is known of an image into its card. */
export function fill(entry, several) {
  const { card, name, url, answer, error } = entry;
  const texts = say();
  const part = (selector) => card.querySelector(selector);
  translate(card);
  part(".image").src = url;
  part(".image").alt = several ? name : texts.image;
  part(".name").textContent = name;
  part(".name").hidden = !several;
  part(".image").hidden = Boolean(error || entry.unseen);
  for (const selector of OPTIONAL) part(selector).hidden = true;
  const show = (selector, text) => {
    part(selector).textContent = text;
    part(selector).hidden = !text;
  };
  if (error) {
    paint(part(".headline"), null);
    part(".bin").textContent = troubleOf(error);
    return;
  }
  const { head, bin, line, probability, advice, why } = wordsOf(entry);
  paint(part(".headline"), bin);
  part(".bin").textContent = head;
  show(".why", why);
  part(".unsure").hidden = !why;
  part(".label").textContent = line;
  part(".class").hidden = Boolean(why);
  part("meter").value = probability;
  part(".percent").textContent = percent(probability);
  show(".advice", advice);
  part(".share").hidden = Boolean(why);
  part(".share").textContent = navigator.canShare ? texts.share : texts.save;
  if (answer.classes && !why) list(card, texts.results, answer.classes.length > 1 ? answer.classes : []);
  else list(card, why ? texts.candidates : texts.others, why || answer.class_sure === false ? answer.top : answer.top.slice(1));
  part(".closer").hidden = !entry.closer || Boolean(entry.regions);
  showRegions(entry);
  if (why && entry.regions?.length > 1) { // what the image shows as a whole matters no more
    part(".bin").textContent = texts.several;
    for (const selector of [".why", ".unsure", ".others-title", ".others"]) part(selector).hidden = true;
  }
  part(".heatmap").hidden = !answer.heatmap || answer.rejected; // nothing is answered that it could speak for
  if (answer.heatmap) part(".heatmap img").src = answer.heatmap;
}

/** The objects of an image in a list, numbered as their boxes are. */
function showRegions({ card, regions }) {
  card.querySelector(".found").hidden = card.querySelector(".regions").hidden = !regions;
  if (!regions) return;
  card.querySelector(".found").textContent = say().found(regions.length);
  card.querySelector(".regions").replaceChildren(...regions.map((guess, i) => {
    const line = chip(`${i + 1}. ${capital(binName(guess.bin) || className(guess.class))}`, binOf(guess.bin) ?? null);
    const about = document.createElement("span");
    about.textContent = `${className(guess.class)} ${percent(guess.probability)}`;
    line.append(about);
    return line;
  }));
}

/** A bin in a line of a list. */
export function chip(head, bin) {
  const line = document.createElement("li");
  line.className = "chip";
  line.append(document.getElementById("card").content.querySelector(".sign").cloneNode(true), head);
  paint(line, bin);
  return line;
}

function list(card, title, guesses) {
  card.querySelector(".others-title").textContent = title;
  card.querySelector(".others-title").hidden = card.querySelector(".others").hidden = !guesses.length;
  card.querySelector(".others").replaceChildren(...guesses.map((guess) => {
    const line = document.createElement("li");
    const bin = binName(guess.bin);
    line.textContent = `${className(guess.class)} ${percent(guess.probability)}${bin ? ` → ${bin}` : ""}`;
    return line;
  }));
}

/** How many images go where, most first: [{ head, bin, count }]. */
export function summarize(entries) {
  const counts = new Map();
  for (const entry of entries.filter((one) => one.answer)) {
    const { head, bin } = wordsOf(entry);
    const known = counts.get(head) ?? { head, bin, count: 0 };
    known.count += 1;
    counts.set(head, known);
  }
  return [...counts.values()].sort((a, b) => b.count - a.count);
}
