// Words that a site has chosen: none reads as flavor's own, and none changes how the words beside it are shown.

const BLANKS = "\\u115f\\u1160\\u2800\\u3164\\uffa0"; // they count as letters or signs, and show nothing
const UNSEEN = new RegExp(`[${BLANKS}]|(?![ \\n\\t])[\\p{C}\\p{Z}]`, "gu");
const STACKED = /(\p{M}{4})\p{M}+/gu;
const LEFTWARD = "[\\u0590-\\u08ff\\ufb1d-\\ufdff\\ufe70-\\ufefc\\u{10800}-\\u{10fff}\\u{1e800}-\\u{1efff}]";
const LEFTWARDS = new RegExp(`${LEFTWARD}(?:[^\\p{L}\\p{N}"\\n]*${LEFTWARD})*`, "gu");
const [ISOLATED, AS_BEFORE] = ["\u2068", "\u2069"];
const PLAIN = /^[\n\t\x20-\x7e]*$/;

/** Letters of Cyrillic, Greek and Armenian that look like letters of Latin, as in flavor/printable.py. */
const LIKE_LATIN = new Set("асеорхуіјѕһԁԛԝАВЕЅІЈКМНОРСТХУҮορνιΑΒΕΖΗΙΚΜΝΟΡΤΥΧօ");

function escaped(letter) {
  const number = letter.codePointAt(0);
  const [kind, digits] = number < 0x100 ? ["x", 2] : number < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${kind}${number.toString(16).padStart(digits, "0")}`;
}

/**
 * Text as this page shows all text: `dom.js` calls this for each piece. What cannot be seen is shown as `\u202e`, marks
 * do not pile up over other lines, and words that are written from right to left turn round no words beside them.
 */
export function visible(words) {
  if (PLAIN.test(words)) return words;
  return words.replace(UNSEEN, escaped).replace(STACKED, "$1…").replace(LEFTWARDS, `${ISOLATED}$&${AS_BEFORE}`);
}

/** What a site says, in quotation marks and in one line, as in flavor's terminal commands; "" for nothing. */
export function said(words) {
  const line = String(words ?? "").split(/\s+/).filter(Boolean).join(" ").replaceAll('"', "'");
  return line && `"${line}"`;
}

/** A word of a site: as it is where it can be nothing else, or in quotation marks. */
export const term = (word) => (/^[\w./@%+-]{1,64}$/.test(word ?? "") ? word : said(word));

/** The name of a metric; in quotation marks and ASCII where it looks like another one (`shown_name` of printable.py). */
export function named(name) {
  const letters = [...name].filter((letter) => letter > "\x7f" && /\p{L}/u.test(letter));
  const isLike = (letter) => LIKE_LATIN.has(letter) || /^[\0-\x7f]*$/.test(letter.normalize("NFKC"));
  const likes = letters.filter(isLike);
  const looksAlike = likes.length && letters.every((letter) => isLike(letter) || /\p{Script=Latin}/u.test(letter));
  if (!looksAlike && name === name.split(/\s+/).filter(Boolean).join(" ")) return name;
  const mark = name.includes("'") && !name.includes('"') ? '"' : "'"; // as Python quotes a string
  return mark + name.replaceAll("\\", "\\\\").replaceAll(mark, `\\${mark}`).replace(/[^\x20-\x7e]/gu, escaped) + mark;
}
