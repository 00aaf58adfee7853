// Colors and signs of bins: strokes in a square of 24, for the page and for the image that is shared.

const SIGNS = {
  paper: "M6 3h8l4 4v14H6z M14 3v4h4 M9 12h6 M9 16h6",
  cardboard: "M3 8l9-5 9 5v9l-9 5-9-5z M3 8l9 5 9-5 M12 13v9",
  carton: "M7 10l3-6h4l3 6v11H7z M7 10h10 M10 4V2h4v2 M12 10v11",
  can: "M7 5c0-1 2-2 5-2s5 1 5 2v14c0 1-2 2-5 2s-5-1-5-2z M7 5c0 1 2 2 5 2s5-1 5-2 M7 16c0 1 2 2 5 2s5-1 5-2",
  bottle: "M10 2h4v4l2 3v12H8V9l2-3z M10 4h4 M8 12h8 M8 17h8",
  glass: "M10 2h4v6c2 1 3 3 3 5v8H7v-8c0-2 1-4 3-5z M10 5h4 M7 14h10",
  bag: "M6 8h12l1 13H5z M9 11V6a3 3 0 0 1 6 0v5",
  foam: "M3 6h18v3H3z M4 9l2 12h12l2-12 M9 12l.5 6 M15 12l-.5 6",
  shirt: "M8 3L3 6l2 5 2-1v11h10V10l2 1 2-5-5-3c-1 2-3 3-4 3S9 5 8 3z",
  food: "M12 8c-2-2-7-2-7 4 0 5 3 9 5 9 1 0 1-.5 2-.5s1 .5 2 .5c2 0 5-4 5-9 0-6-5-6-7-4z M12 8c0-2 1-4 3-5",
  trash: "M4 6h16 M9 6V3h6v3 M6 6l1 15h10l1-15 M10 10v7 M14 10v7",
  fire: "M12 2c1 4 6 6 6 12a6 6 0 0 1-12 0c0-3 2-4 3-6 1 1 1 2 2 3 1-2 2-5 1-9z",
  spray: "M8 11c0-2 1-3 2-3h4c1 0 2 1 2 3v10H8z M10 8V4h4v4 M8 15h8 M17 4l3-1 M17 6h3",
  deposit: "M9 14L4 9l5-5 M4 9h11a5.5 5.5 0 0 1 0 11h-5",
  pan: "M3 9h13v6a4 4 0 0 1-4 4H7a4 4 0 0 1-4-4z M16 11h6",
  recycle: "M8 8l4-6 4 6 M17 4l-1 4-4-1 M18 12l3 5-2 4h-6 M15 18l-3 3 3 3 M8 21H5l-2-4 3-6 M2 12l4-1 1 4",
};
const UNKNOWN = { color: "#4b5563", path: "M8 8.5a4 4 0 1 1 5.5 3.7c-1.1.5-1.5 1.3-1.5 2.8 M12 19v.2" };

/** How a bin of labels.json looks: { color, ink, path }; what has none, and where there is no answer, gets a ?. */
export function lookOf(bin) {
  const color = bin?.color || UNKNOWN.color;
  return { color, ink: inkOn(color), path: SIGNS[bin?.sign] ?? (bin ? SIGNS.trash : UNKNOWN.path) };
}

/** Black or white, whichever is easier to read on a color (WCAG 2.2, contrast ratio; at least 4.58). */
export function inkOn(color) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return 1.05 / (light + 0.05) > (light + 0.05) / 0.05 ? "#ffffff" : "#000000";
}

/** Gives a headline the color and the sign of a bin. */
export function paint(headline, bin) {
  const { color, ink, path } = lookOf(bin);
  headline.style.setProperty("--bin", color);
  headline.style.setProperty("--ink", ink);
  headline.querySelector(".sign path").setAttribute("d", path);
}
