// What the page says, a file a language, all with the same keys; `reasons`: of HTTP statuses, and of what the page
// itself finds.

import de from "./texts-de.js";
import en from "./texts-en.js";
import fr from "./texts-fr.js";
import ja from "./texts-ja.js";
import ko from "./texts-ko.js";

export const TEXTS = { en, ko, de, ja, fr };

// Names of the taxonomies that the project holds; others are shown as they name themselves.
export const REGIONS = {
  "South Korea": { ko: "대한민국", de: "Südkorea", ja: "韓国", fr: "Corée du Sud" },
  "England": { ko: "잉글랜드", de: "England", ja: "イングランド", fr: "Angleterre" },
  "Germany": { ko: "독일", de: "Deutschland", ja: "ドイツ", fr: "Allemagne" },
  "Japan (Yokohama)": { ko: "일본(요코하마)", de: "Japan (Yokohama)", ja: "日本(横浜市)", fr: "Japon (Yokohama)" },
  "France": { ko: "프랑스", de: "Frankreich", ja: "フランス", fr: "France" },
};
