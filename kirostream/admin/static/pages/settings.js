// Settings: what each is, where it comes from, and changing it.

import { get, post, put } from "../api.js";
import { Region, h } from "../dom.js";
import { keep, stored, t } from "../i18n.js";
import { doing, say, worded } from "../ui.js";

export default function open(page) {
  const search = h("input", { type: "search", placeholder: t("settings.search"), "aria-label": t("settings.search") });
  const changed = h("input", { type: "checkbox" });
  const file = h("span", { class: "dim small mono" });
  const list = h("div", { class: "stack" });
  page.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, t("page.settings")),
      file,
      h("label", { class: "check" }, changed, t("settings.changed")),
      search,
      doing(t("settings.reload"), async () => {
        const said = await post("/settings/reload");
        say(said.now.length || said.waiting.length ? t("settings.reloaded", { now: said.now.length, waiting: said.waiting.length }) : t("settings.same"));
        await look();
      }),
    ),
    list,
  );
  let known = [];
  const shown = new Region(list, (settings) => {
    const sections = Map.groupBy ? Map.groupBy(settings, (each) => each.section) : grouped(settings);
    return sections.size
      ? [...sections].map(([name, members]) =>
          h("section", { class: "card flush" }, h("h2", { class: "mono" }, `[${name}]`), members.map((each) => setting(each, replaced))),
        )
      : h("p", { class: "card empty" }, t("settings.none"));
  });
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown.update(
      known.filter(
        (each) =>
          (!changed.checked || each.waiting || JSON.stringify(each.value) !== JSON.stringify(each.default)) &&
          words.every((word) => `${each.name} ${each.help}`.toLowerCase().includes(word)),
      ),
    );
  };
  const replaced = (one) => {
    known = known.map((each) => (each.name === one.name ? one : each));
    draw();
  };
  search.addEventListener("input", draw);
  changed.checked = stored("settings.changed") === "yes";
  changed.addEventListener("change", () => {
    keep("settings.changed", changed.checked ? "yes" : "no");
    draw();
  });
  async function look() {
    const said = await get("/settings");
    known = said.settings;
    file.textContent = file.title = said.file;
    draw();
  }
  look().catch((error) => list.replaceChildren(h("div", { class: "notice warn" }, h("p", {}, worded(error)))));
}

function grouped(settings) {
  const sections = new Map();
  for (const each of settings) sections.set(each.section, [...(sections.get(each.section) ?? []), each]);
  return sections;
}

function words(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
}

function setting(one, replaced) {
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const id = `set-${one.name}`;
  const write = async (value) => {
    error.hidden = true;
    try {
      const done = await put(`/settings/${encodeURIComponent(one.name)}`, { value });
      say(t(`settings.acts.${done.acts}`, { name: one.name, by: done.by }), done.acts === "never" ? "bad" : "good");
      replaced(done.setting);
    } catch (refused) {
      error.textContent = worded(refused);
      error.hidden = false;
    }
  };
  let input;
  if (one.kind === "boolean") {
    input = h("input", { id, type: "checkbox", role: "switch", "data-focus": one.name, onchange: () => write(input.checked) });
    input.checked = one.value === true;
  } else {
    input = h("input", {
      id,
      type: one.secret ? "password" : "text",
      inputmode: one.kind === "integer" || one.kind === "number" ? "decimal" : "text",
      autocomplete: "off",
      spellcheck: "false",
      "data-focus": one.name,
      readonly: one.kind === "list" || one.kind === "table",
      value: one.secret ? "" : words(one.value),
      placeholder: one.secret && one.value ? "••••••••" : "",
    });
  }
  const save = h("button", { type: "submit", hidden: true }, t("settings.save"));
  input.addEventListener("input", () => (save.hidden = one.kind === "boolean" || input.readOnly));
  const differs = JSON.stringify(one.value) !== JSON.stringify(one.default);
  return h(
    "form",
    {
      class: "setting",
      "data-setting": one.name,
      onsubmit: (event) => {
        event.preventDefault();
        write(input.value);
      },
    },
    h(
      "div",
      {},
      h("label", { class: "name", for: id }, one.name.slice(one.section.length + 1) || one.name),
      h("p", { class: "dim small" }, one.help),
    ),
    h(
      "div",
      { class: "stack" },
      h(
        "div",
        { class: "edit" },
        input,
        one.unit ? h("span", { class: "dim small" }, one.unit) : null,
        save,
        differs && !input.readOnly
          ? h("button", { type: "button", class: "plain", onclick: () => write(null) }, t("settings.default"))
          : null,
        error,
      ),
      h(
        "p",
        { class: "row small dim" },
        h("span", {}, t("settings.from", { origin: one.origin })),
        one.live ? h("span", { class: "good" }, t("settings.live")) : null,
        one.waiting ? h("span", { class: "pill warn" }, t("settings.waits", { acts: one.secret ? "••••" : words(one.acts) })) : null,
      ),
    ),
  );
}
