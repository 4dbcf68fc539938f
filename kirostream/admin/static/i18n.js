// Words. Every one is in messages.json, in each language; `t` finds it.

let catalogue = {};
let language = "en";

export const LANGUAGES = { en: "English", zh: "中文" };

export function current() {
  return language;
}

/** Load the words, in the language that was chosen here, or else in one that the browser asks for. */
export async function load() {
  catalogue = await (await fetch("/admin/static/messages.json")).json();
  const chosen = stored("language") ?? navigator.languages.find((each) => each.slice(0, 2) in LANGUAGES) ?? "en";
  choose(chosen.slice(0, 2));
}

export function choose(name) {
  language = name in LANGUAGES ? name : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : language;
  keep("language", language);
}

/** The words of a key, with what is in braces filled in. */
export function t(key, values = {}) {
  const words = catalogue[language]?.[key] ?? catalogue.en?.[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** The words of a key, or what stands in for them where there are none. */
export function tOr(key, otherwise) {
  return catalogue[language]?.[key] ?? otherwise;
}

const locale = () => (language === "zh" ? "zh-CN" : "en");

export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

/** Short: 12.3K, 4.5M. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

/** Credits: with as many digits as say something. */
export function credits(value) {
  if (value === null || value === undefined) return "–";
  if (value && Math.abs(value) < 1) return new Intl.NumberFormat(locale(), { maximumSignificantDigits: 2 }).format(value);
  return number(value, 2);
}

/** Seconds, as a person reads them. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return `0 ${t("unit.second")}`;
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${number(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  if (value < 60) return `${number(value, value < 10 ? 2 : 1)} s`;
  return span(value);
}

/** A stretch of time: 3 d 4 h, 12 min. */
export function span(value) {
  const parts = [
    [86400, t("unit.day")],
    [3600, t("unit.hour")],
    [60, t("unit.minute")],
    [1, t("unit.second")],
  ];
  let left = Math.max(0, Math.round(value));
  const said = [];
  for (const [size, unit] of parts) {
    if (left >= size || (size === 1 && !said.length)) {
      said.push(`${Math.floor(left / size)} ${unit}`);
      left %= size;
    }
    if (said.length === 2) break;
  }
  return said.join(" ");
}

export function bytes(value) {
  return value === null || value === undefined ? "–" : `${number(value / 1048576, 1)} MB`;
}

/** A time; of another day than today with its date. */
export function moment(at) {
  if (!at) return "–";
  const then = new Date(at * 1000);
  if (then.toDateString() === new Date().toDateString()) return clock(at);
  return then.toLocaleString(locale(), { dateStyle: "medium", timeStyle: "short" });
}

export function day(at) {
  return at ? new Date(at * 1000).toLocaleDateString(locale(), { dateStyle: "medium" }) : "–";
}

/** A date without its year: 14 Nov. */
export function date(at) {
  return new Date(at * 1000).toLocaleDateString(locale(), { month: "short", day: "numeric" });
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString(locale(), { hour12: false });
}

/** What this browser remembers of the panel; nothing, where it may not. */
export function stored(name) {
  try {
    return localStorage.getItem(`kirostream.${name}`);
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`kirostream.${name}`, value);
  } catch {
    // Private windows may refuse; then it holds until the page is left.
  }
}
