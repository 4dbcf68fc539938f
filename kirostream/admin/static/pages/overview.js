// How the gateway is, at a glance.

import { get, put } from "../api.js";
import { chart } from "../charts.js";
import { Region, h } from "../dom.js";
import { bytes, clock, credits, number, seconds, short, span, t, tOr } from "../i18n.js";
import { doing, repeatedly, say, sure } from "../ui.js";
import { stateKind, turnState } from "./words.js";

export default function open(page) {
  const notices = h("div", { class: "stack" });
  const tiles = h("dl", { class: "grid tiles" });
  const charts = h("div", { class: "grid two" });
  const below = h("div", { class: "grid two" });
  const upstream = h("div", { class: "row" });
  const told = h("div", { class: "stack" });
  const head = h("div", { class: "head" }, h("h1", {}, t("page.overview")), h("span", { class: "grow" }), upstream);
  page.append(head, told, notices, tiles, charts, below);

  const ask = async (on) => {
    if (on && !(await sure(t("simulated.sure"), t("simulated.turn_on")))) return;
    const now = await put("/simulator", { on });
    asked.forEach((region) => region.update(now));
    window.dispatchEvent(new Event("switched"));
    say(t(now.on ? "simulated.is_on" : "simulated.is_off"));
  };
  const asked = [
    new Region(upstream, ({ on, demo }) => (on || demo ? [] : doing(t("simulated.turn_on"), () => ask(true)))),
    new Region(told, ({ on, demo, in_flight }) => [
      on && !demo
        ? h(
            "div",
            { class: "notice warn row between" },
            h("p", {}, t("simulated.on")),
            doing(t("simulated.turn_off"), () => ask(false)),
          )
        : null,
      !on && in_flight ? h("div", { class: "notice" }, h("p", {}, t("simulated.rest", { n: in_flight }))) : null,
    ]),
  ];

  const parts = [
    new Region(notices, ({ status, reasons }) =>
      reasons.map((reason) =>
        h(
          "div",
          { class: `notice ${status === "unhealthy" ? "bad" : "warn"}` },
          h("p", {}, tOr(`reason.${reason.code}`, ""), " ", reason.message),
        ),
      ),
    ),
    new Region(tiles, (said) => said.map(tile)),
    new Region(charts, (minutes) => [
      drawn(t("chart.turns"), minutes, [t("chart.answered"), t("chart.failed")], (m) => [m.turns - m.failed, m.failed], {
        colours: ["s0", "s2"],
        worth: (value) => number(value, 1),
      }),
      drawn(t("chart.tokens"), minutes, [t("chart.output"), t("chart.input")], (m) => [m.output_tokens, m.input_tokens], {
        colours: ["s0", "s1"],
      }),
      drawn(t("chart.first_token"), minutes, [t("chart.first_token")], (m) => [m.first_token], { kind: "curve", worth: seconds, colours: ["s3"] }),
      drawn(t("chart.credits"), minutes, [t("chart.credits")], (m) => [m.credits], { colours: ["s3"], worth: credits }),
    ]),
    new Region(below, ({ turns, facts, accounts }) => [latest(turns), about(facts, accounts)]),
  ];

  return repeatedly(async (signal) => {
    const [status, simulator, stats, turns] = await Promise.all([
      get("/status", signal),
      get("/simulator", signal),
      get("/stats", signal),
      get("/turns", signal),
    ]);
    asked.forEach((region) => region.update(simulator.on ? { ...simulator, in_flight: 0 } : simulator));
    const hour = stats.minutes;
    const sum = (name) => hour.reduce((total, minute) => total + minute[name], 0);
    parts[0].update({ status: status.status, reasons: status.reasons });
    parts[1].update([
      [t("tile.rate"), number(stats.turns_per_minute, 1), t("tile.rate.unit"), t("tile.in_flight", { n: status.in_flight })],
      [t("tile.turns"), number(sum("turns")), "", t("tile.failed", { n: number(sum("failed")) })],
      [t("tile.tokens"), short(sum("output_tokens")), "", t("tile.input", { n: short(sum("input_tokens")) })],
      [t("tile.credits"), credits(sum("credits")), "", t("tile.total", { n: credits(stats.totals.credits) })],
      [t("tile.first_token"), seconds(stats.totals.first_token), "", t("tile.mean")],
      [t("tile.overhead"), seconds(stats.totals.overhead), "", t("tile.overhead.note")],
    ]);
    parts[2].update(hour);
    parts[3].update({
      turns: turns.turns.slice(0, 7),
      accounts: status.accounts,
      facts: [
        [t("about.version"), `${status.version} (${status.core})`],
        [t("about.uptime"), span(status.uptime - (status.uptime % 60) || status.uptime)],
        [t("about.address"), status.urls.filter(Boolean).join(", ")],
        [t("about.upstream"), status.upstream],
        [t("about.memory"), bytes(status.memory)],
        [t("about.connections"), number(status.connections)],
        [t("about.data"), status.data_dir],
      ],
    });
  }, 3000);
}

function tile([name, value, unit, note]) {
  return h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, unit ? h("small", {}, " ", unit) : null), h("dd", { class: "note" }, note));
}

function drawn(label, minutes, series, values, more) {
  return h(
    "section",
    { class: "card" },
    h("h2", {}, label),
    chart({ label, series, when: (at) => clock(at).slice(0, 5), points: minutes.map((m) => ({ at: m.at, values: values(m) })), ...more }),
  );
}

function latest(turns) {
  return h(
    "section",
    { class: "card flush" },
    h("div", { class: "row between" }, h("h2", {}, t("overview.latest")), h("a", { href: "#/turns", class: "small" }, t("overview.all"))),
    turns.length
      ? h(
          "table",
          {},
          h(
            "tbody",
            {},
            turns.map((turn) =>
              h(
                "tr",
                {},
                h("td", { class: "nowrap dim" }, clock(turn.created)),
                h("td", {}, turn.answered_by || turn.model),
                h("td", { class: "number" }, number(turn.tokens)),
                h("td", { class: "number" }, turnState(turn)),
              ),
            ),
          ),
        )
      : h("p", { class: "empty" }, t("turns.none")),
  );
}

function about(facts, accounts) {
  return h(
    "section",
    { class: "card stack" },
    h("h2", {}, t("about.title")),
    h(
      "dl",
      { class: "facts" },
      facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      h("dt", {}, t("page.accounts")),
      h(
        "dd",
        { class: "row" },
        Object.entries(accounts).map(([state, count]) => h("span", { class: `pill ${stateKind(state)}` }, `${count} ${t(`state.${state}`)}`)),
        Object.keys(accounts).length ? null : t("accounts.none"),
      ),
    ),
  );
}
