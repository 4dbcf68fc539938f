// Parts that several pages have: buttons that do something, dialogs, notes, snippets.

import { h, icon } from "./dom.js";
import { t } from "./i18n.js";

const notes = h("div", { class: "toasts", role: "status", "aria-live": "polite" });
document.body.append(notes);

/** Say something for a few seconds. */
export function say(message, kind = "good") {
  const note = h("div", { class: `toast ${kind}` }, message);
  notes.append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 9000 : 4500);
}

/** What went wrong, as one sentence with what to do next. */
export function worded(error) {
  if (error.type === "unreachable") return t("error.unreachable");
  if (error.type === "too_many_tries") return t("login.wait", { seconds: error.wait });
  return [error.message, error.next].filter(Boolean).join(" ");
}

/** A button that does something that takes time: it is busy meanwhile, and what goes wrong is said. */
export function doing(words, act, attributes = {}) {
  const button = h("button", { type: "button", ...attributes }, words);
  button.addEventListener("click", async () => {
    button.setAttribute("aria-busy", "true");
    button.disabled = true;
    try {
      await act(button);
    } catch (error) {
      if (error.name !== "AbortError") say(worded(error), "bad");
    } finally {
      button.removeAttribute("aria-busy");
      button.disabled = false;
    }
  });
  return button;
}

/** A dialog in front of the page. `build(close)` gives what is in it; it goes when it is closed. */
export function dialog(title, build, onclose = () => {}) {
  const element = h("dialog", { "aria-label": title });
  const close = () => element.close();
  element.append(h("div", { class: "body" }, h("h1", {}, title), build(close)));
  element.addEventListener("close", () => {
    onclose();
    element.remove();
  });
  document.body.append(element);
  element.showModal();
  return element;
}

/** Ask before something is done that cannot be taken back. */
export function sure(question, verb) {
  return new Promise((resolve) => {
    let answer = false;
    dialog(
      t("confirm.title"),
      (close) => [
        h("p", {}, question),
        h(
          "div",
          { class: "foot" },
          h("button", { type: "button", onclick: close }, t("cancel")),
          h(
            "button",
            {
              type: "button",
              class: "primary",
              onclick: () => {
                answer = true;
                close();
              },
            },
            verb,
          ),
        ),
      ],
      () => resolve(answer),
    );
  });
}

/** Text to be copied, with a button that does it. */
export function snippet(text, label) {
  const copy = h("button", { type: "button", class: "icon-only", "aria-label": `${t("copy")}: ${label}`, title: t("copy") }, icon("copy"));
  copy.addEventListener("click", async () => {
    if (await copied(text)) say(t("copied"));
    else say(t("copy.failed"), "bad");
  });
  return h("div", { class: "snippet" }, h("pre", { tabindex: "0", "aria-label": label }, h("code", {}, text)), copy);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, and not on this machine, a browser has no clipboard for pages: the old way still works.
    const area = h("textarea", { class: "visually-hidden" }, text);
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A choice of a few: buttons side by side, one of them pressed. */
export function segments(label, options, chosen, onchoose) {
  const group = h("div", { class: "segments", role: "group", "aria-label": label });
  for (const [value, words] of options) {
    group.append(
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(value === chosen),
          onclick: (event) => {
            for (const each of group.children) each.setAttribute("aria-pressed", String(each === event.currentTarget));
            onchoose(value);
          },
        },
        words,
      ),
    );
  }
  return group;
}

/** A labelled field of a form. */
export function field(words, input) {
  return h("label", { class: "field" }, words, input);
}

export function table(head, rows, label) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, head.map(([words, kind]) => h("th", { class: kind, scope: "col" }, words)))),
      h("tbody", {}, rows),
    ),
  );
}

/** Do something now, and again after every pause, while the page is there and seen. Gives what ends it. */
export function repeatedly(work, pause) {
  const over = new AbortController();
  const turn = async () => {
    if (over.signal.aborted) return;
    if (!document.hidden) {
      try {
        await work(over.signal);
      } catch (error) {
        if (error.name !== "AbortError" && error.status !== 401) window.dispatchEvent(new CustomEvent("trouble", { detail: error }));
      }
    }
    if (!over.signal.aborted) setTimeout(turn, pause);
  };
  turn();
  return () => over.abort();
}
