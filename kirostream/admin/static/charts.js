// Charts, drawn as SVG at the width they have: bars that stand on each other, or curves.

import { h, s } from "./dom.js";
import { short } from "./i18n.js";

const HEIGHT = 150;
const LEFT = 42;
const RIGHT = 4;
const TOP = 8;
const BOTTOM = 20;

/** The next round number at or above `value`: 1, 2, 2.5 or 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((each) => each >= value * 0.9999);
}

/**
 * A chart.
 *
 * `points` are `{at, values}`, one value for each of `series`, null for none; `series` are names; `when(at)` words a
 * time on the axis, `exactly(at)` at a point, `worth(value)` a value; `kind` is "bars" or "curve".
 */
export function chart({ label, points, series, colours = series.map((_, n) => `s${n}`), when, exactly = when, worth = short, kind = "bars" }) {
  const tip = h("div", { class: "tip", hidden: true });
  const picture = h("div", {});
  const figure = h(
    "figure",
    { class: "chart" },
    picture,
    tip,
    series.length > 1
      ? h("figcaption", { class: "legend" }, series.map((name, n) => h("span", { class: colours[n] }, name)))
      : null,
  );
  const sum = points.reduce((total, point) => total + point.values.reduce((a, b) => a + (b ?? 0), 0), 0);
  const summary = `${label}: ${worth(kind === "bars" ? sum : points.at(-1)?.values[0] ?? null)}`;

  const draw = (width) => {
    const inner = Math.max(width - LEFT - RIGHT, 10);
    const slot = inner / Math.max(points.length, 1);
    const tall = (point) =>
      kind === "bars" ? point.values.reduce((a, b) => a + (b ?? 0), 0) : Math.max(0, ...point.values.map((v) => v ?? 0));
    const top = ceiling(Math.max(0, ...points.map(tall)));
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    const x = (n) => LEFT + slot * n;
    const drawn = [];
    for (const part of [0, 0.5, 1]) {
      const at = y(top * part);
      drawn.push(s("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      drawn.push(s("text", { class: "axis", x: LEFT - 8, y: at + 4, "text-anchor": "end" }, worth(top * part)));
    }
    const marks = Math.max(2, Math.min(6, Math.floor(inner / 110)));
    for (let mark = 0; mark < marks && points.length; mark++) {
      const n = Math.round(((points.length - 1) * mark) / (marks - 1));
      const anchor = mark === 0 ? "start" : mark === marks - 1 ? "end" : "middle";
      const at = mark === 0 ? LEFT : mark === marks - 1 ? width - RIGHT : x(n) + slot / 2;
      drawn.push(s("text", { class: "axis", x: at, y: HEIGHT - 4, "text-anchor": anchor }, when(points[n].at)));
    }
    if (kind === "bars") {
      const wide = Math.max(1, Math.min(slot - (slot > 6 ? 2 : 0.5), 28));
      points.forEach((point, n) => {
        let base = 0;
        point.values.forEach((value, which) => {
          if (!value) return;
          const high = Math.max(((HEIGHT - TOP - BOTTOM) * value) / top, 1);
          const at = y(base + value);
          drawn.push(
            s("rect", {
              class: `bar ${colours[which]}`,
              x: x(n) + (slot - wide) / 2,
              y: at,
              width: wide,
              height: high,
              rx: Math.min(2, wide / 3),
            }),
          );
          base += value;
        });
      });
    } else {
      series.forEach((_, which) => {
        const runs = [[]];
        points.forEach((point, n) => {
          const value = point.values[which];
          if (value === null || value === undefined) runs.push([]);
          else runs.at(-1).push([x(n) + slot / 2, y(value)]);
        });
        for (const run of runs.filter((each) => each.length)) {
          const path = run.map(([a, b], n) => `${n ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
          if (run.length === 1) {
            drawn.push(s("circle", { class: colours[which], cx: run[0][0], cy: run[0][1], r: 2.2 }));
            continue;
          }
          const floor = y(0);
          drawn.push(s("path", { class: `area ${colours[which]}`, d: `${path}L${run.at(-1)[0]} ${floor}L${run[0][0]} ${floor}Z` }));
          drawn.push(s("path", { class: `${colours[which]} curve`, d: path }));
        }
      });
    }
    const guide = s("line", { class: "guide", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": summary }, drawn, guide);
    svg.addEventListener("pointermove", (event) => {
      const n = Math.floor((event.offsetX - LEFT) / slot);
      const point = points[n];
      if (!point) return hide();
      const at = x(n) + slot / 2;
      guide.setAttribute("x1", at);
      guide.setAttribute("x2", at);
      guide.setAttribute("visibility", "visible");
      tip.replaceChildren(
        h("b", {}, exactly(point.at)),
        ...series.map((name, which) => h("div", {}, `${name}: ${worth(point.values[which])}`)),
      );
      tip.hidden = false;
      const beside = at + 14 + tip.offsetWidth > width ? at - 14 - tip.offsetWidth : at + 14;
      tip.style.left = `${Math.max(0, beside)}px`;
    });
    const hide = () => {
      tip.hidden = true;
      guide.setAttribute("visibility", "hidden");
    };
    svg.addEventListener("pointerleave", hide);
    picture.replaceChildren(svg);
  };

  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now && now !== width) draw((width = now));
  }).observe(figure);
  return figure;
}
