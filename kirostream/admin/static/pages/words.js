// How states are shown, on every page alike.

import { h } from "../dom.js";
import { t, tOr } from "../i18n.js";

const KINDS = { ready: "good", cooling: "warn", exhausted: "warn", "needs login": "bad", suspended: "bad", disabled: "" };

export function stateKind(state) {
  return KINDS[state] ?? "";
}

export function turnState(turn) {
  if (turn.status === "in_progress") return h("span", { class: "pill accent" }, t("turn.in_progress"));
  if (turn.status === "failed") return h("span", { class: "pill bad" }, t("turn.failed"));
  return h("span", { class: "pill good" }, tOr(`stop.${turn.stop}`, turn.stop));
}
