// Log lines: as they are written, by level and time, searched, paused, cleared, saved; and debug captures.

import { ROOT, get, put, remove, withQuery } from "../api.js";
import { h } from "../dom.js";
import { t } from "../i18n.js";
import { doing, say, segments, sure, worded } from "../ui.js";

const MOST = 2000; // lines on the page
const SPANS = { 3600: "hour", 21600: "hours", 86400: "day", 0: "all" };
const KINDS = { error: "bad", warning: "warn", info: "good", debug: "dim" };

export default function open(page) {
  const wanted = { level: "info", span: 3600, search: "" };
  let source = null;
  let paused = false;
  let held = [];
  let later;
  const list = h("div", { class: "log", role: "log", tabindex: "0", "aria-label": t("page.logs"), "aria-live": "off" });
  const note = h("p", { class: "dim small", role: "status" });
  const nothing = h("p", { class: "empty" }, t("logs.none"));
  const search = h("input", { type: "search", placeholder: t("logs.search"), "aria-label": t("logs.search") });
  const pause = h("button", { type: "button", "aria-pressed": "false" }, t("logs.pause"));
  const save = h("a", { class: "button", download: "" }, t("logs.export"));
  const bottom = h("button", { type: "button", onclick: () => (list.scrollTop = list.scrollHeight) }, t("logs.bottom"));

  page.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, t("page.logs")),
      note,
      h("span", { class: "grow" }),
      search,
      segments(t("logs.level"), Object.keys(KINDS).map((name) => [name, t(`level.${name}`)]), wanted.level, (name) => {
        wanted.level = name;
        begin();
      }),
      segments(t("usage.span"), Object.entries(SPANS).map(([size, name]) => [Number(size), t(`logs.span.${name}`)]).sort((a, b) => (a[0] || 1e9) - (b[0] || 1e9)), wanted.span, (size) => {
        wanted.span = size;
        begin();
      }),
    ),
    h(
      "section",
      { class: "card flush" },
      h(
        "div",
        { class: "row" },
        pause,
        h("button", { type: "button", onclick: () => (list.replaceChildren(), count()) }, t("logs.clear")),
        bottom,
        h("span", { class: "grow" }),
        save,
      ),
      list,
    ),
    captures(),
  );

  const query = () => ({
    level: wanted.level,
    search: wanted.search,
    since: wanted.span ? Math.floor(Date.now() / 1000 - wanted.span) : "",
  });
  const count = () => {
    nothing.remove();
    if (!list.childElementCount) list.append(nothing);
    note.textContent = paused && held.length ? t("logs.held", { n: held.length }) : "";
  };
  const add = (lines) => {
    const near = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    nothing.remove();
    list.append(...lines.map(row));
    while (list.childElementCount > MOST) list.firstElementChild.remove();
    count();
    if (near) list.scrollTop = list.scrollHeight;
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = t(paused ? "logs.resume" : "logs.pause");
    if (!paused) {
      add(held);
      held = [];
    }
    count();
  });
  search.addEventListener("input", () => {
    clearTimeout(later);
    later = setTimeout(() => {
      wanted.search = search.value.trim();
      begin();
    }, 250);
  });

  let begun = 0;
  async function begin() {
    const mine = ++begun;
    source?.close();
    held = [];
    save.href = ROOT + withQuery("/logs/export", query());
    try {
      // First what comes, then what was, so that nothing falls in between; what is in both is shown once.
      const early = [];
      const { since: _, ...live } = query();
      source = new EventSource(ROOT + withQuery("/logs/live", live));
      let ready = false;
      source.onmessage = (message) => {
        const line = JSON.parse(message.data);
        if (!ready) early.push(line);
        else if (paused) held.push(line) > MOST && held.shift();
        else add([line]);
        if (paused) count();
      };
      const said = await get(withQuery("/logs", { ...query(), most: 500 }));
      if (mine !== begun) return;
      const seen = new Set(said.lines.map((line) => JSON.stringify(line)));
      list.replaceChildren();
      add([...said.lines.reverse(), ...early.filter((line) => !seen.has(JSON.stringify(line)))]);
      ready = true;
      list.scrollTop = list.scrollHeight;
    } catch (error) {
      source?.close();
      list.replaceChildren(h("p", { class: "empty" }, worded(error)));
      if (error.status !== 404) say(worded(error), "bad");
    }
  }
  begin();
  return () => {
    begun++;
    clearTimeout(later);
    source?.close();
  };
}

const MODE = "relay.captures.mode";

/** Debug captures: which exchanges are kept, and all of them as a file. */
function captures() {
  const note = h("p", { class: "dim small", role: "status" });
  const chosen = h("span", {});
  const card = h(
    "section",
    { class: "card", "aria-label": t("captures.title") },
    h(
      "div",
      { class: "row" },
      h("h2", {}, t("captures.title")),
      chosen,
      h("span", { class: "grow" }),
      h("a", { class: "button", download: "", href: `${ROOT}/captures/export` }, t("captures.export")),
      doing(t("captures.clear"), async () => {
        if (!(await sure(t("captures.sure"), t("captures.clear")))) return;
        say(t("captures.cleared", { n: (await remove("/captures")).deleted }));
        await look();
      }),
    ),
    h("p", { class: "dim small" }, t("captures.help")),
    note,
  );
  async function look() {
    const said = await get("/captures");
    const modes = ["off", "errors", "all"].map((name) => [name, t(`captures.mode.${name}`)]);
    chosen.replaceChildren(
      segments(t("captures.which"), modes, said.mode, async (value) => {
        try {
          const done = await put(`/settings/${MODE}`, { value });
          say(t(`settings.acts.${done.acts}`, { name: MODE, by: done.by }), done.acts === "never" ? "bad" : "good");
        } catch (error) {
          say(worded(error), "bad");
        }
        await look();
      }),
    );
    note.textContent = [t("captures.count", { n: said.captures.length }), said.trouble].filter(Boolean).join(" ");
  }
  look().catch((error) => (note.textContent = worded(error)));
  return card;
}

function worth(value) {
  if (typeof value === "string") return value;
  return JSON.stringify(typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value);
}

function row(line) {
  const at = new Date(line.timestamp);
  return h(
    "div",
    { "data-level": line.level },
    h("time", { datetime: line.timestamp, title: at.toLocaleString() }, at.toLocaleTimeString("en-GB", { hour12: false }), ".", String(at.getMilliseconds()).padStart(3, "0")),
    h("span", { class: KINDS[line.level] ?? "" }, line.level),
    h(
      "span",
      { class: "event" },
      h("b", {}, line.event),
      Object.entries(line.known).map(([name, value]) => [" ", h("span", { class: "key" }, `${name}=`), worth(value)]),
    ),
  );
}
