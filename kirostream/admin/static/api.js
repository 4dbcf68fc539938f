// The way to the API: one function, one kind of error.

export const ROOT = "/admin/api";

let csrf = "";

/** What the API refused: `message` says what is wrong, `next` what to do. */
export class Refused extends Error {
  constructor(status, fault, wait) {
    super(fault.message);
    this.status = status;
    this.type = fault.type;
    this.next = fault.next;
    this.param = fault.param;
    this.wait = wait;
  }
}

/** Ask the API. Gives the JSON of the answer, null where it has none. */
export async function ask(method, path, body, signal) {
  const headers = {};
  if (method !== "GET") headers["x-csrf-token"] = csrf;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(ROOT + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { type: "unreachable", message: "", next: "", param: "" });
  }
  const text = await answer.text();
  let said = null;
  try {
    said = text ? JSON.parse(text) : null;
  } catch {
    said = null;
  }
  if (answer.ok) return said;
  const fault = said?.error ?? { type: "unreadable", message: `${answer.status}`, next: "", param: "" };
  if (answer.status === 401 && path !== "/session") window.dispatchEvent(new Event("logged-out"));
  throw new Refused(answer.status, fault, Number(answer.headers.get("retry-after") ?? 0));
}

export const get = (path, signal) => ask("GET", path, undefined, signal);
export const post = (path, body) => ask("POST", path, body);
export const put = (path, body) => ask("PUT", path, body);
export const remove = (path) => ask("DELETE", path);

/** Who is logged in; null where nobody is. */
export async function session() {
  try {
    const said = await get("/session");
    csrf = said.csrf;
    return said;
  } catch (error) {
    if (error.status === 401) return null;
    throw error;
  }
}

export async function logIn(password) {
  const said = await post("/session", { password });
  csrf = said.csrf;
  return said;
}

export async function logOut() {
  await remove("/session");
  csrf = "";
}

/** A path of the API with a query; what is empty is left out. */
export function withQuery(path, query) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) said.set(name, value);
  }
  const text = said.toString();
  return text ? `${path}?${text}` : path;
}
