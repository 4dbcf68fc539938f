// The panel's frame: who is logged in, which page is shown, and what all pages share.

import { get, logIn, logOut, session } from "./api.js";
import { h, icon } from "./dom.js";
import { LANGUAGES, choose, current, keep, load, stored, t } from "./i18n.js";
import { repeatedly, say, worded } from "./ui.js";

const PAGES = ["overview", "accounts", "turns", "logs", "usage", "keys", "settings", "setup"];
const app = document.getElementById("app");

let leave = () => {};
let stopStatus = () => {};
let light;
let mark;
let counter;

function theme() {
  return stored("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function show(name) {
  document.documentElement.dataset.theme = name;
}

function themeButton() {
  const button = h("button", { type: "button", class: "plain icon-only" });
  const draw = () => {
    const other = theme() === "dark" ? "light" : "dark";
    button.replaceChildren(icon(other === "dark" ? "moon" : "sun"));
    button.title = t(`theme.${other}`);
    button.setAttribute("aria-label", t(`theme.${other}`));
  };
  button.addEventListener("click", () => {
    keep("theme", theme() === "dark" ? "light" : "dark");
    show(theme());
    draw();
  });
  draw();
  return button;
}

function languageButton() {
  const other = Object.keys(LANGUAGES).find((each) => each !== current());
  return h(
    "button",
    {
      type: "button",
      class: "plain",
      lang: other,
      "aria-label": LANGUAGES[other],
      onclick: () => {
        choose(other);
        start();
      },
    },
    LANGUAGES[other],
  );
}

function gate(note = "") {
  leave();
  stopStatus();
  const password = h("input", { type: "password", autocomplete: "current-password", required: true, name: "password" });
  const trouble = h("p", { class: "bad small", role: "alert" }, note);
  const enter = h("button", { class: "primary", type: "submit" }, t("login.enter"));
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        enter.disabled = true;
        trouble.textContent = "";
        try {
          await logIn(password.value);
          keep("came", "yes");
          frame();
        } catch (error) {
          trouble.textContent = error.status === 401 ? `${t("login.wrong")} ${error.message}` : worded(error);
          password.select();
        } finally {
          enter.disabled = false;
        }
      },
    },
    h("div", { class: "brand" }, h("img", { src: "/admin/static/icon.svg", alt: "" }), h("h1", {}, "kirostream")),
    h("label", { class: "field" }, t("login.password"), password),
    h("p", { class: "dim small" }, t("login.help")),
    trouble,
    enter,
    h("div", { class: "row" }, themeButton(), languageButton()),
  );
  app.replaceChildren(h("main", { class: "gate" }, form));
  document.title = `${t("login.title")} · kirostream`;
  password.focus();
}

function frame() {
  light = h("span", { class: "light dim", role: "img", "aria-label": t("light.unknown") });
  mark = h("a", { class: "pill warn mark", href: "#/overview", hidden: true }, t("simulated.mark"));
  counter = h("span", { class: "count", hidden: true });
  const links = PAGES.map((name) =>
    h("a", { href: `#/${name}`, "data-page": name }, icon(name), t(`page.${name}`), name === "turns" ? counter : null),
  );
  const main = h("main", { class: "main", id: "main", tabindex: "-1" });
  app.replaceChildren(
    h("a", { class: "skip", href: "#main", onclick: (event) => (event.preventDefault(), main.focus()) }, t("skip")),
    h(
      "div",
      { class: "shell" },
      h(
        "header",
        { class: "side" },
        h("div", { class: "brand" }, h("img", { src: "/admin/static/icon.svg", alt: "" }), "kirostream", light),
        mark,
        h("nav", { class: "nav", "aria-label": t("nav") }, links),
        h(
          "div",
          { class: "side-foot" },
          themeButton(),
          languageButton(),
          h(
            "button",
            {
              type: "button",
              class: "plain icon-only",
              title: t("logout"),
              "aria-label": t("logout"),
              onclick: async () => {
                await logOut().catch(() => {});
                gate();
              },
            },
            icon("exit"),
          ),
        ),
      ),
      main,
    ),
  );
  stopStatus();
  stopStatus = repeatedly(async (signal) => shine(await get("/status", signal)), 4000);
  turn();
}

function shine(status) {
  const colour = { healthy: "good", degraded: "warn", unhealthy: "bad" }[status.status];
  light.className = `light ${colour}`;
  const words = [t(`light.${status.status}`), ...status.reasons.map((reason) => reason.message)].join(" ");
  light.setAttribute("aria-label", words);
  light.title = words;
  mark.hidden = !status.simulated;
  mark.title = t(status.demo ? "simulated.demo" : "simulated.on");
  counter.hidden = !status.in_flight;
  counter.textContent = status.in_flight;
  window.dispatchEvent(new CustomEvent("status", { detail: status }));
}

let turned = 0;

async function turn() {
  const main = document.getElementById("main");
  if (!main) return;
  const [, wanted = ""] = location.hash.match(/^#\/(\w+)/) ?? [];
  const name = PAGES.includes(wanted) ? wanted : "overview";
  for (const link of document.querySelectorAll(".nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave();
  leave = () => {};
  const mine = ++turned;
  document.title = `${t(`page.${name}`)} · kirostream`;
  const page = h("div", { class: "page" });
  main.replaceChildren(page);
  try {
    const { default: open } = await import(`./pages/${name}.js`);
    if (mine !== turned) return;
    leave = open(page) ?? (() => {});
  } catch (error) {
    page.append(h("div", { class: "notice bad" }, h("p", {}, worded(error))));
  }
}

let troubled = 0;
window.addEventListener("switched", async () => shine(await get("/status")));
window.addEventListener("hashchange", () => {
  turn();
  document.getElementById("main")?.focus({ preventScroll: true });
});
window.addEventListener("logged-out", () => gate(t("login.again")));
window.addEventListener("trouble", (event) => {
  if (light && event.detail.type === "unreachable") {
    light.className = "light bad";
    light.setAttribute("aria-label", t("error.unreachable"));
  }
  if (Date.now() - troubled > 15000) {
    troubled = Date.now();
    say(worded(event.detail), "bad");
  }
});

async function start() {
  show(theme());
  try {
    // Who was never here is not asked who they are: a refusal is an error in the browser's console.
    if (stored("came") && (await session())) frame();
    else gate();
  } catch (error) {
    gate(worded(error));
  }
}

await load();
await start();
