// What turns cost: the ledger, by day, model, key and account.

import { ROOT, get, withQuery } from "../api.js";
import { chart } from "../charts.js";
import { Region, h } from "../dom.js";
import { clock, credits, date, day, moment, number, seconds, short, t, tOr } from "../i18n.js";
import { repeatedly, segments, table } from "../ui.js";

const SPANS = { day: [86400, "hour"], week: [7 * 86400, "hour"], month: [30 * 86400, "day"], quarter: [90 * 86400, "day"] };
const DIMENSIONS = ["day", "model", "key", "account"];

export default function open(page) {
  let span = "week";
  let by = "model";
  let measure = "credits";
  let only = {};
  const narrowed = h("span", { class: "row" });
  const tiles = h("dl", { class: "grid tiles" });
  const picture = h("section", { class: "card" });
  const shares = h("section", { class: "card flush" });
  const turns = h("section", { class: "card flush" });
  const files = h("span", { class: "row" });

  const since = () => Math.floor((Date.now() / 1000 - SPANS[span][0]) / 3600) * 3600;
  const again = () => {
    draw();
    look().catch((error) => window.dispatchEvent(new CustomEvent("trouble", { detail: error })));
  };
  const draw = () => {
    files.replaceChildren(
      ...["csv", "json"].map((form) =>
        h("a", { class: "button", download: "", href: ROOT + withQuery("/usage/export", { form, since: since(), ...only }) }, form.toUpperCase()),
      ),
    );
    narrowed.replaceChildren(
      ...Object.entries(only).map(([name, value]) =>
        h(
          "button",
          {
            type: "button",
            "aria-label": t("usage.widen", { name: value }),
            onclick: () => {
              delete only[name];
              again();
            },
          },
          `${t(`by.${name}`)}: ${value} ×`,
        ),
      ),
    );
  };
  page.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, t("page.usage")),
      narrowed,
      h("span", { class: "grow" }),
      segments(t("usage.span"), Object.keys(SPANS).map((name) => [name, t(`span.${name}`)]), span, (name) => {
        span = name;
        again();
      }),
      files,
    ),
    tiles,
    picture,
    shares,
    turns,
  );

  const values = {
    credits: { of: (totals) => [totals.credits], series: () => [t("chart.credits")], colours: ["s3"], worth: credits },
    tokens: { of: (totals) => [totals.output_tokens, totals.input_tokens], series: () => [t("chart.output"), t("chart.input")], colours: ["s0", "s1"], worth: short },
    turns: { of: (totals) => [totals.turns - totals.failed, totals.failed], series: () => [t("chart.answered"), t("chart.failed")], colours: ["s0", "s2"], worth: (value) => number(value, 1) },
  };
  const parts = {
    tiles: new Region(tiles, (totals) => [
      tile(t("chart.credits"), credits(totals.credits), ""),
      tile(t("usage.turns"), number(totals.turns), t("tile.failed", { n: number(totals.failed) })),
      tile(t("chart.output"), short(totals.output_tokens), ""),
      tile(t("chart.input"), short(totals.input_tokens), t("usage.cached", { n: short(totals.cache_read_tokens) })),
      tile(t("chart.first_token"), seconds(totals.first_token), t("tile.mean")),
      tile(t("usage.pace"), number(totals.tokens_per_second), t("turns.rate")),
    ]),
    picture: new Region(picture, ({ buckets, step, measure: what }) => [
      h(
        "div",
        { class: "row between" },
        h("h2", {}, t("usage.over_time")),
        segments(t("usage.measure"), Object.keys(values).map((name) => [name, t(`measure.${name}`)]), what, (name) => {
          measure = name;
          again();
        }),
      ),
      chart({
        label: t(`measure.${what}`),
        series: values[what].series(),
        colours: values[what].colours,
        worth: values[what].worth,
        when: (at) => (span === "day" ? clock(at).slice(0, 5) : date(at)),
        exactly: step === "day" ? day : moment,
        points: buckets.map((bucket) => ({ at: bucket.at, values: values[what].of(bucket.totals) })),
      }),
    ]),
    shares: new Region(shares, ({ list, by: what }) => [
      h(
        "div",
        { class: "row between" },
        h("h2", {}, t("usage.by")),
        segments(t("usage.by"), DIMENSIONS.map((name) => [name, t(`by.${name}`)]), what, (name) => {
          by = name;
          again();
        }),
      ),
      list.length
        ? table(
            [[t(`by.${what}`)], [t("usage.turns"), "number"], [t("chart.failed"), "number"], [t("chart.input"), "number"], [t("chart.output"), "number"], [t("chart.credits"), "number"], [t("chart.first_token"), "number"], [t("usage.pace"), "number"]],
            list.map(({ name, label, totals }) =>
              h(
                "tr",
                {},
                h("td", {}, what === "day" || !name ? name || "–" : h("button", { type: "button", class: "link", title: t("usage.narrow"), onclick: () => ((only = { ...only, [what]: name }), again()) }, label || name)),
                h("td", { class: "number" }, number(totals.turns)),
                h("td", { class: totals.failed ? "number bad" : "number dim" }, number(totals.failed)),
                h("td", { class: "number" }, number(totals.input_tokens)),
                h("td", { class: "number" }, number(totals.output_tokens)),
                h("td", { class: "number" }, credits(totals.credits)),
                h("td", { class: "number" }, seconds(totals.first_token)),
                h("td", { class: "number" }, number(totals.tokens_per_second)),
              ),
            ),
            t("usage.by"),
          )
        : h("p", { class: "empty" }, t("usage.none")),
    ]),
    turns: new Region(turns, (list) => [
      h("h2", {}, t("usage.single")),
      list.length
        ? table(
            [[t("turns.when")], [t("turns.model")], [t("turns.key")], [t("turns.account")], [t("chart.input"), "number"], [t("chart.output"), "number"], [t("chart.credits"), "number"], [t("turns.first"), "number"], [t("turns.time"), "number"], [t("turns.state")]],
            list.map((turn) =>
              h(
                "tr",
                {},
                h("td", { class: "nowrap dim" }, moment(turn.at)),
                h("td", {}, turn.model),
                h("td", { class: "dim" }, turn.key),
                h("td", { class: "dim" }, turn.account_label || "–"),
                h("td", { class: "number" }, number(turn.input_tokens)),
                h("td", { class: "number" }, number(turn.output_tokens)),
                h("td", { class: "number" }, credits(turn.credits)),
                h("td", { class: "number" }, seconds(turn.first_token)),
                h("td", { class: "number" }, seconds(turn.seconds)),
                h("td", {}, h("span", { class: `pill ${turn.outcome === "failed" ? "bad" : turn.outcome === "left" ? "warn" : "good"}`, title: turn.error }, tOr(`stop.${turn.outcome}`, turn.outcome))),
              ),
            ),
            t("usage.single"),
          )
        : h("p", { class: "empty" }, t("usage.none")),
    ]),
  };

  async function look(signal) {
    const from = { since: since(), ...only };
    const step = SPANS[span][1];
    const what = { by, measure };
    const [said, series, single] = await Promise.all([
      get(withQuery("/usage", { ...from, by }), signal),
      get(withQuery("/usage/series", { ...from, step }), signal),
      get(withQuery("/usage/turns", { ...from, most: 50 }), signal),
    ]);
    parts.tiles.update(said.totals);
    parts.picture.update({ buckets: series.buckets, step, measure: what.measure });
    parts.shares.update({ list: said.shares, by: what.by });
    parts.turns.update(single.turns);
  }
  draw();
  return repeatedly(look, 10000);
}

function tile(name, value, note) {
  return h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value), h("dd", { class: "note" }, note));
}
