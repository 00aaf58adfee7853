// The language that the page speaks now, and the names that labels.json has in it.

import { REGIONS, TEXTS } from "./texts.js";

export const now = { language: "en", labels: null };

export const say = () => TEXTS[now.language];
/** Which of our languages a tag such as "de-AT" asks for: its first part, not the first letters ("kok" is Konkani). */
export function languageOf(tag) {
  const [language] = tag.toLowerCase().split(/[-_]/);
  return Object.hasOwn(TEXTS, language) ? language : "en";
}
export const percent = (p) =>
  new Intl.NumberFormat(now.language, { style: "percent", maximumFractionDigits: 0 }).format(p);
export const time = (date) =>
  new Intl.DateTimeFormat(now.language, { dateStyle: "medium", timeStyle: "short" }).format(date);
export const region = () => REGIONS[now.labels.region]?.[now.language] ?? now.labels.region;
export const binOf = (name) => now.labels.bins[name];
export const binName = (name) => binOf(name)?.[now.language] ?? "";
const itemOf = (name) => now.labels.classes.find((item) => item.name === name); // an old answer's may be gone
export const className = (name) => itemOf(name)?.[now.language] ?? name;

export const capital = (text) => text.slice(0, 1).toLocaleUpperCase(now.language) + text.slice(1);

/** One advice: the class's own, else the bin's. */
export function adviceOf(name, bin) {
  const key = `advice_${now.language}`;
  return itemOf(name)?.[key] || binOf(bin)?.[key] || "";
}

/** Sets the texts, names and alternatives that elements below `root` ask for. */
export function translate(root) {
  const texts = say();
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", texts[element.dataset.label]);
  }
  for (const element of root.querySelectorAll("[data-alt]")) element.alt = texts[element.dataset.alt];
}

/** Why an image cannot be read, in the reader's language. */
function faultOf({ status, reason }) {
  const known = say().reasons;
  return now.language === "en" && status && reason ? reason : known[status] ?? known[reason] ?? known.unreadable;
}

/** Why an image has no answer: it cannot be read, or what `key` says, with a detail where there is one. */
export function troubleOf(error) {
  if (!error.key) return `${say().failed} (${faultOf(error)})`;
  return say()[error.key] + (error.detail ? ` (${error.detail})` : "");
}
