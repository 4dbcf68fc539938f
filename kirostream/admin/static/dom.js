// Making elements. Text is always text: nothing here, and nothing that uses it, parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element of HTML: `h("p", {class: "dim", onclick: f}, "text", other)`. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of SVG. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const PATHS = {
  overview: "M3 13h4l3-9 4 16 3-7h4",
  accounts: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-8 9c0-4 3.5-6 8-6s8 2 8 6",
  turns: "M4 5h16v10H9l-5 4V5Z",
  logs: "M4 6h16M4 10h10M4 14h16M4 18h8",
  usage: "M5 20V10m7 10V4m7 16v-7",
  keys: "M15 9a4 4 0 1 1-3.5-4A4 4 0 0 1 15 9Zm-2.5 2.5L20 19m-3-3 2-2",
  settings: "M4 7h9m5 0h2M4 17h2m5 0h9M15.5 9.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Zm-7 10a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Z",
  setup: "m8 7-5 5 5 5m8-10 5 5-5 5",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm0-13v1m0 16v1m9-9h-1M4 12H3m15.4-6.4-.7.7M6.3 17.7l-.7.7m12.8 0-.7-.7M6.3 6.3l-.7-.7",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z",
  exit: "M14 4h5v16h-5M3 12h11m-4-4 4 4-4 4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  plus: "M12 5v14M5 12h14",
};

/** A small drawing, for the eye alone. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: PATHS[name] }));
}

/**
 * A part of a page that is built anew when its data is another, and left alone otherwise, so that nobody loses the
 * focus, or what is selected, because a second has passed.
 */
export class Region {
  constructor(element, build) {
    this.element = element;
    this.build = build;
    this.seen = undefined;
  }

  update(data, force = false) {
    const said = JSON.stringify(data);
    if (said === this.seen && !force) return;
    this.seen = said;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    this.element.replaceChildren(...[this.build(data)].flat(Infinity).filter(Boolean));
    if (focused) this.element.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }
}
