// Client keys: who may ask, what for, and how much.

import { ask, get, post, remove } from "../api.js";
import { Region, h, icon } from "../dom.js";
import { credits, day, number, t } from "../i18n.js";
import { dialog, doing, field, repeatedly, say, snippet, sure, table, worded } from "../ui.js";

const SCOPES = ["api", "watch", "admin"];
const LIMITS = ["concurrency", "requests", "tokens", "credits_per_day", "credits_per_month"];

export default function open(page) {
  const list = h("section", { class: "card flush" });
  page.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, t("page.keys")),
      h("p", { class: "dim" }, t("keys.help")),
      h("span", { class: "grow" }),
      h("button", { type: "button", class: "primary", onclick: () => giving(look) }, icon("plus"), t("keys.add")),
    ),
    list,
  );
  const rows = new Region(list, (keys) =>
    keys.length
      ? table(
          [[t("keys.name")], [t("keys.scopes")], [t("keys.limits")], [t("account.in_flight"), "number"], [t("keys.month"), "number"], [t("turns.state")], [h("span", { class: "visually-hidden" }, t("keys.verbs"))]],
          keys.map((key) => row(key, look)),
          t("page.keys"),
        )
      : h("p", { class: "empty" }, t("keys.none")),
  );
  async function look(signal) {
    rows.update((await get("/keys", signal)).keys);
  }
  return repeatedly(look, 3000);
}

function state(key) {
  if (!key.enabled) return h("span", { class: "pill" }, t("state.disabled"));
  if (key.expires_at && key.expires_at * 1000 < Date.now()) return h("span", { class: "pill bad" }, t("keys.expired"));
  return h("span", { class: "pill good" }, key.expires_at ? t("keys.until", { day: day(key.expires_at) }) : t("keys.good"));
}

function limits(key) {
  const said = LIMITS.filter((name) => key.limits[name]).map((name) => t(`limit.said.${name}`, { n: number(key.limits[name], 2) }));
  return said.length ? said.join(" · ") : t("keys.unlimited");
}

function row(key, look) {
  const at = `/keys/${encodeURIComponent(key.id)}`;
  const verb = (name, act, attributes = {}) =>
    doing(t(`keys.${name}`), act, { "data-focus": `${key.id} ${name}`, "aria-label": `${t(`keys.${name}`)}: ${key.name}`, ...attributes });
  return h(
    "tr",
    { "data-key": key.name },
    h("td", {}, h("b", {}, key.name), h("div", { class: "dim small mono" }, key.hint)),
    h("td", {}, h("span", { class: "row" }, key.scopes.map((scope) => h("span", { class: `pill bare ${scope === "admin" ? "accent" : ""}` }, scope)))),
    h("td", { class: "small" }, limits(key)),
    h("td", { class: "number" }, number(key.in_flight)),
    h("td", { class: "number" }, credits(key.credits_this_month)),
    h("td", {}, state(key)),
    h(
      "td",
      {},
      h(
        "span",
        { class: "row" },
        verb("edit", async () => editing(key, look)),
        verb("rotate", async () => {
          if (!(await sure(t("keys.rotate.sure", { name: key.name }), t("keys.rotate")))) return;
          shown(await post(`${at}/rotate`, { keep: 3600 }));
          await look();
        }),
        verb(key.enabled ? "disable" : "enable", async () => {
          await ask("PATCH", at, { enabled: !key.enabled });
          await look();
        }),
        verb("remove", async () => {
          if (!(await sure(t("keys.remove.sure", { name: key.name }), t("keys.remove")))) return;
          await remove(at);
          say(t("account.removed", { name: key.name }));
          await look();
        }, { class: "danger" }),
      ),
    ),
  );
}

/** What a key may do and use, as fields, and what they say. */
function fields(key) {
  const scopes = SCOPES.map((name) => {
    const box = h("input", { type: "checkbox", value: name });
    box.checked = key.scopes.includes(name);
    return [box, h("label", { class: "check" }, box, h("span", {}, h("b", {}, name), " ", h("span", { class: "dim small" }, t(`scope.${name}`))))];
  });
  const boxes = LIMITS.map((name) => [name, h("input", { type: "number", min: "0", step: name.startsWith("credits") ? "any" : "1", value: String(key.limits[name] || ""), placeholder: t("keys.unlimited") })]);
  const expires = h("input", { type: "date", value: key.expires_at ? new Date(key.expires_at * 1000).toISOString().slice(0, 10) : "" });
  return {
    elements: [
      h("fieldset", { class: "stack" }, h("legend", { class: "dim small" }, t("keys.scopes")), scopes.map(([, label]) => label)),
      h("div", { class: "grid two-narrow" }, boxes.map(([name, box]) => field(t(`limit.${name}`), box)), field(t("keys.expires"), expires)),
    ],
    said: () => ({
      scopes: scopes.filter(([box]) => box.checked).map(([box]) => box.value),
      limits: Object.fromEntries(boxes.map(([name, box]) => [name, Number(box.value || 0)])),
      expires_at: expires.value ? new Date(`${expires.value}T23:59:59Z`).getTime() / 1000 : 0,
    }),
  };
}

function form(elements, words, submit, close) {
  const trouble = h("p", { class: "bad small", role: "alert" });
  return h(
    "form",
    {
      class: "stack",
      onsubmit: async (event) => {
        event.preventDefault();
        trouble.textContent = "";
        try {
          await submit();
        } catch (error) {
          trouble.textContent = worded(error);
        }
      },
    },
    elements,
    trouble,
    h("div", { class: "foot" }, h("button", { type: "button", onclick: close }, t("cancel")), h("button", { type: "submit", class: "primary" }, words)),
  );
}

function giving(look) {
  dialog(t("keys.add"), (close) => {
    const name = h("input", { required: true, maxlength: "64", pattern: "[A-Za-z0-9][A-Za-z0-9._@\\-]*", autocomplete: "off" });
    const rest = fields({ scopes: ["api"], limits: {}, expires_at: 0 });
    return form(
      [field(t("keys.name"), name), rest.elements],
      t("keys.add"),
      async () => {
        const given = await post("/keys", { name: name.value, ...rest.said() });
        close();
        shown(given);
        await look();
      },
      close,
    );
  });
}

function editing(key, look) {
  dialog(key.name, (close) => {
    const rest = fields(key);
    return form(
      rest.elements,
      t("settings.save"),
      async () => {
        await ask("PATCH", `/keys/${encodeURIComponent(key.id)}`, rest.said());
        close();
        await look();
      },
      close,
    );
  });
}

function shown(given) {
  dialog(given.key.name, (close) => [
    h("p", {}, t("keys.once")),
    snippet(given.secret, t("keys.secret")),
    h("div", { class: "foot" }, h("button", { type: "button", class: "primary", onclick: close }, t("keys.kept"))),
  ]);
}
