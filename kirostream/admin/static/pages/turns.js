// Turns as they happen: who asks what model, and what it says, token by token.

import { ROOT, get, post } from "../api.js";
import { Region, h } from "../dom.js";
import { clock, credits, number, seconds, t } from "../i18n.js";
import { doing, repeatedly, table } from "../ui.js";
import { turnState } from "./words.js";

const MOST = 400000; // characters of one block on the page

export default function open(page) {
  const list = h("section", { class: "card flush" });
  const detail = h("section", { class: "card flush", "aria-label": t("turns.said") });
  page.append(
    h("div", { class: "head" }, h("h1", {}, t("page.turns")), h("p", { class: "dim" }, t("turns.help"))),
    h("div", { class: "watch" }, list, detail),
  );
  let chosen = "";
  let picked = false;
  let watched = null;
  let newest = [];

  const rows = new Region(list, ({ turns, chosen: mine }) =>
    turns.length
      ? table(
          [[t("turns.when")], [t("turns.model")], [t("turns.key")], [t("turns.tokens"), "number"], [t("turns.time"), "number"], [t("turns.state")]],
          turns.map((turn) =>
            h(
              "tr",
              { class: "selectable", "aria-selected": String(turn.id === mine), "data-turn": turn.id, onclick: () => ((picked = true), choose(turn.id)) },
              h("td", { class: "nowrap dim" }, clock(turn.created)),
              h("td", { class: "nowrap" }, h("button", { type: "button", class: "link", "data-focus": turn.id }, turn.answered_by || turn.model)),
              h("td", { class: "dim" }, turn.key),
              h("td", { class: "number" }, number(turn.tokens)),
              h("td", { class: "number" }, seconds(turn.status === "in_progress" && turn.seconds !== null ? Math.round(turn.seconds * 10) / 10 : turn.seconds)),
              h("td", {}, turnState(turn)),
            ),
          ),
          t("page.turns"),
        )
      : h("p", { class: "empty" }, t("turns.none")),
  );

  function choose(id) {
    if (id === chosen) return;
    chosen = id;
    watched?.close();
    watched = watch(detail, id);
    rows.update({ turns: newest, chosen });
    const turn = newest.find((each) => each.id === id);
    if (turn) watched.describe(turn);
  }

  detail.append(h("p", { class: "empty" }, t("turns.choose")));
  const stop = repeatedly(async (signal) => {
    newest = (await get("/turns", signal)).turns.slice(0, 100);
    rows.update({ turns: newest, chosen });
    let turn = newest.find((each) => each.id === chosen);
    if (!picked && turn?.status !== "in_progress") {
      // Until somebody picks one, the page follows what happens.
      turn = newest.find((each) => each.status === "in_progress") ?? turn ?? newest[0];
      if (turn) choose(turn.id);
    }
    if (turn) watched?.describe(turn);
  }, 1000);
  return () => {
    stop();
    watched?.close();
  };
}

/** Show what one turn says. */
function watch(place, id) {
  const facts = h("dl", { class: "facts grow" });
  const cancel = doing(t("turns.cancel"), () => post(`/turns/${encodeURIComponent(id)}/cancel`), { class: "danger", hidden: true });
  const speech = h("div", { class: "speech", tabindex: "0", role: "log", "aria-label": t("turns.said"), "aria-live": "off" });
  place.replaceChildren(h("div", { class: "row between" }, facts, cancel), speech);
  const described = new Region(facts, (rows) => rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  const blocks = new Map();
  const source = new EventSource(`${ROOT}/turns/${encodeURIComponent(id)}/events`);

  const follow = (change) => {
    const near = speech.scrollHeight - speech.scrollTop - speech.clientHeight < 40;
    change();
    if (near) speech.scrollTop = speech.scrollHeight;
  };
  const block = (kind, head) => {
    const text = document.createTextNode("");
    const element = h("div", { class: `${kind} live` }, head ? h("b", {}, head) : null, text);
    speech.append(element);
    return { element, text, length: 0 };
  };
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    follow(() => {
      if (event.type === "block_started") {
        const kind = { thinking: "thinking", tool_call: "tool", search: "tool", search_result: "tool" }[event.kind] ?? "text";
        const head = event.name || (event.kind === "text" ? "" : event.kind === "thinking" ? "" : t(`block.${event.kind}`));
        blocks.set(event.index, block(kind, head));
      } else if (event.type === "block_delta") {
        const held = blocks.get(event.index);
        const text = event.pieces.join("");
        if (held && held.length < MOST) {
          held.text.appendData(text);
          held.length += text.length;
        }
      } else if (event.type === "block_ended") {
        blocks.get(event.index)?.element.classList.remove("live");
      } else if (event.type === "turn_ended" || event.type === "turn_failed") {
        source.close();
        for (const held of blocks.values()) held.element.classList.remove("live");
        if (event.type === "turn_failed") speech.append(h("p", { class: "bad" }, event.error.message));
      }
    });
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) return;
    source.close(); // it would begin anew, and say everything twice
  };
  return {
    describe(turn) {
      cancel.hidden = turn.status !== "in_progress";
      described.update([
        [t("turns.model"), turn.model === turn.answered_by ? turn.model : `${turn.model} → ${turn.answered_by}`],
        [t("turns.account"), turn.account || "–"],
        [t("turns.key"), `${turn.key} · ${turn.dialect}`],
        [t("turns.first"), seconds(turn.first_event)],
        [t("turns.tokens"), pace(turn)],
        ...(turn.credits === null ? [] : [[t("chart.credits"), credits(turn.credits)]]),
        ...(turn.attempts > 1 ? [[t("turns.attempts"), number(turn.attempts)]] : []),
      ]);
    },
    close: () => source.close(),
  };
}

function pace(turn) {
  const time = turn.seconds === null ? 0 : turn.seconds - (turn.first_event ?? 0);
  const rate = time > 0.2 ? ` · ${number(turn.tokens / time)} ${t("turns.rate")}` : "";
  return `${number(turn.tokens)}${rate}`;
}
